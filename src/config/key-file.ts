/** API keys in a file of their own, so that they stand neither in process lists nor beside other settings. */
import { MoestroError } from '../errors.js';
import { isSendableKey } from '../settings/checks.js';
import { readSmallFile } from './small-file.js';

/**
 * One key a line; empty lines and those that begin with # do not count.
 *
 * @param name what the path was given under, named in errors.
 * @throws {MoestroError} INVALID_CONFIG for a file that cannot be read, has no key, or has a key that no header can carry.
 *     Errors name lines, never keys.
 */
export function readKeyFile(path: string, name: string): readonly string[] {
  const refuse = (found: string, needed: string): never => {
    throw new MoestroError('INVALID_CONFIG', `Cannot use ${name} "${path}": found ${found}, needed ${needed}`, {
      path,
    });
  };
  const lines = readSmallFile(path, `${name} "${path}"`)
    .split(/\r?\n/)
    .map((line) => line.trim());
  const wrong = lines.findIndex((line) => line !== '' && !line.startsWith('#') && !isSendableKey(line));
  if (wrong >= 0) refuse(`something else in line ${wrong + 1}`, 'a key of visible ASCII characters without spaces');
  const keys = lines.filter((line) => line !== '' && !line.startsWith('#'));
  // A server that asks for no key because a file was empty would be open to everybody.
  return keys.length > 0 ? keys : refuse('no key', 'at least one, each on a line of its own');
}
