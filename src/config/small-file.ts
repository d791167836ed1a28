/** Reads a file that a person wrote: text of a modest size, or an error that says what is there instead. */
import { readFileSync, statSync } from 'node:fs';
import { MoestroError } from '../errors.js';

/** Far more than all settings take; a model given by mistake has gigabytes. */
const BYTES_MAX = 1 << 20;

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'found nothing there',
  EACCES: 'not allowed to read it',
  EPERM: 'not allowed to read it',
  ENOTDIR: 'found a file where a directory was needed',
  ELOOP: 'found a circle of links',
  ENAMETOOLONG: 'the name is too long',
};

/**
 * @param what the file as the message names it.
 * @throws {MoestroError} INVALID_CONFIG when there is no readable file of UTF-8 text of at most 1 MiB.
 */
export function readSmallFile(path: string, what: string): string {
  const refuse = (found: string, cause?: unknown): never => {
    throw new MoestroError('INVALID_CONFIG', `Cannot read ${what}: ${found}, needed a text file`, { path }, cause);
  };
  let bytes: Buffer;
  try {
    const found = statSync(path);
    if (found.isDirectory()) return refuse('found a directory');
    if (!found.isFile()) return refuse('found something that is no file');
    if (found.size > BYTES_MAX) return refuse(`found ${found.size} bytes, at most ${BYTES_MAX} are read`);
    bytes = readFileSync(path);
  } catch (cause) {
    if (cause instanceof MoestroError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    return refuse(REASONS[code ?? ''] ?? message, cause);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    return refuse('found bytes that are no UTF-8', cause);
  }
}
