/** API keys in a file of their own, so that they stand neither in process lists nor beside other settings. */
import { MoestroError } from '../errors.js';
import { isSendableKey } from '../settings/checks.js';
import { readSmallFile } from './small-file.js';

/** What one key may ask for; null for as much as the server can do. */
export interface KeyLimits {
  readonly requestsPerMinute: number | null;
  readonly atOnce: number | null;
}

const LIMITS: Readonly<Record<string, keyof KeyLimits>> = {
  'requests-per-minute': 'requestsPerMinute',
  'at-once': 'atOnce',
};
const NEEDED = 'a key of visible ASCII characters without spaces';
const NEEDED_LIMITS = `${Object.keys(LIMITS)
  .map((limit) => `${limit}=COUNT`)
  .join(' or ')} after the key`;

/**
 * One key a line, and after it what limits it alone: "KEY requests-per-minute=60 at-once=2". Empty lines and those that
 * begin with # do not count.
 *
 * @param name what the path was given under, named in errors.
 * @returns limits by key; what a line does not say is absent.
 * @throws {MoestroError} INVALID_CONFIG for a file that cannot be read, has no key, has a key that no header can carry or
 *     one twice, or a limit that is none. Errors name lines, never keys.
 */
export function readKeyFile(path: string, name: string): ReadonlyMap<string, Partial<KeyLimits>> {
  const refuse = (found: string, needed: string): never => {
    throw new MoestroError('INVALID_CONFIG', `Cannot use ${name} "${path}": found ${found}, needed ${needed}`, {
      path,
    });
  };
  const keys = new Map<string, Partial<KeyLimits>>();
  const lines = readSmallFile(path, `${name} "${path}"`).split(/\r?\n/);
  for (const [index, line] of lines.entries()) {
    const [key, ...words] = line.trim().split(/\s+/);
    if (key === undefined || key === '' || key.startsWith('#')) continue;
    const place = `line ${index + 1}`;
    if (!isSendableKey(key)) refuse(`something else in ${place}`, NEEDED);
    if (keys.has(key)) refuse(`a key again in ${place}`, 'each key once');
    const limits: { -readonly [Name in keyof KeyLimits]?: number } = {};
    for (const word of words) {
      const [, limit, count] = /^([a-z-]+)=([1-9]\d{0,6})$/.exec(word) ?? [];
      const field = LIMITS[limit ?? ''];
      // Not shown: it may be a part of a key.
      if (field === undefined) return refuse(`something else behind the key in ${place}`, NEEDED_LIMITS);
      limits[field] = Number(count);
    }
    keys.set(key, limits);
  }
  // A server that asks for no key because a file was empty would be open to everybody.
  return keys.size > 0 ? keys : refuse('no key', 'at least one, each on a line of its own');
}
