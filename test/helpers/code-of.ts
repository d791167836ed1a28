/** The code of the error that a call throws, or null when it throws none. */
import { MoestroError } from '../../src/errors.js';

export function codeOf(call: () => unknown): string | null {
  try {
    call();
    return null;
  } catch (error) {
    if (error instanceof MoestroError) return error.code;
    throw error;
  }
}
