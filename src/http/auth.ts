/** Keys of the server: `Authorization: Bearer KEY`, or `x-api-key: KEY`. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { MoestroError } from '../errors.js';

/**
 * A check that throws UNAUTHORIZED when the headers carry none of the keys; without keys everything passes.
 * Keys are compared by their digests in constant time, and all of them every time, so that timing tells nothing.
 */
export function keyCheck(keys: readonly string[]): (headers: IncomingHttpHeaders) => void {
  if (keys.length === 0) return () => undefined;
  const digests = keys.map(digest);
  return (headers) => {
    const given = presentedKeys(headers).map(digest);
    let isKnown = false;
    for (const one of given) for (const known of digests) isKnown = timingSafeEqual(one, known) || isKnown;
    if (isKnown) return;
    const found = given.length === 0 ? 'no key' : 'a key that is not known here';
    throw new MoestroError(
      'UNAUTHORIZED',
      `Cannot let the request in: found ${found}, needed "Authorization: Bearer KEY" or "x-api-key: KEY"`,
    );
  };
}

function presentedKeys(headers: IncomingHttpHeaders): string[] {
  const bearer = /^Bearer\s+(\S+)\s*$/i.exec(headers.authorization ?? '')?.[1];
  const plain = headers['x-api-key'];
  return [bearer, ...(Array.isArray(plain) ? plain : [plain])].filter(
    (key) => key !== undefined && key !== '',
  ) as string[];
}

const digest = (key: string): Buffer => createHash('sha256').update(key).digest();
