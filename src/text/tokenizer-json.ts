/**
 * Reading untrusted tokenizer JSON: each accessor names the place, what was found and what was needed.
 */
import { MoestroError } from '../errors.js';

export type JsonObject = Readonly<Record<string, unknown>>;

const describe = (value: unknown): string => {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === 'string') return `the string ${JSON.stringify(value.slice(0, 40))}`;
  return typeof value === 'object' ? 'an object' : `${typeof value} ${String(value)}`;
};

export function invalid(place: string, found: unknown, needed: string): MoestroError {
  return new MoestroError('MODEL_INVALID', `Cannot read ${place}: found ${describe(found)}, needed ${needed}`, {
    place,
    needed,
  });
}

export function unsupported(place: string, found: string, supported: readonly string[]): MoestroError {
  return new MoestroError(
    'UNSUPPORTED_TOKENIZER',
    `Cannot use ${place}: found "${found}", supported are ${supported.join(', ')}`,
    { place, found, supported },
  );
}

export function asObject(value: unknown, place: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(place, value, 'an object');
  return value as JsonObject;
}

export function asArray(value: unknown, place: string): readonly unknown[] {
  if (!Array.isArray(value)) throw invalid(place, value, 'an array');
  return value;
}

export function asString(value: unknown, place: string): string {
  if (typeof value !== 'string') throw invalid(place, value, 'a string');
  return value;
}

/** A flag that may be left out. */
export function asFlag(value: unknown, place: string, absent = false): boolean {
  if (value === undefined || value === null) return absent;
  if (typeof value !== 'boolean') throw invalid(place, value, 'true or false');
  return value;
}

/** Vocabularies of today stop at 256 k entries; an id far beyond that would only make us allocate for nothing. */
const TOKEN_ID_MAX = 4 * 1024 * 1024;

export function asTokenId(value: unknown, place: string): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value >= TOKEN_ID_MAX)
    throw invalid(place, value, `a token id from 0 to ${TOKEN_ID_MAX - 1}`);
  return value;
}
