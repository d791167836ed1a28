/** Numbers among the options of one command. */
import { MoestroError } from '../errors.js';

/** Throws INVALID_CONFIG naming the flag, what was found and what was needed. */
export function wholeNumber(flag: string, text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new MoestroError(
    'INVALID_CONFIG',
    `Cannot use ${flag} "${text}": needed a whole number from ${least} to ${most}`,
    { name: flag, found: text },
  );
}

/** The same for numbers with decimals. */
export function decimalNumber(flag: string, text: string, least: number, most: number): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (value >= least && value <= most) return value;
  throw new MoestroError('INVALID_CONFIG', `Cannot use ${flag} "${text}": needed a number from ${least} to ${most}`, {
    name: flag,
    found: text,
  });
}
