/** Keys of the server: `Authorization: Bearer KEY`, or `x-api-key: KEY`. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { MoestroError } from '../errors.js';

/**
 * A check that returns the key which the headers carry, null where there are none to carry, and throws UNAUTHORIZED when it
 * is not one of them. Keys are compared by their digests in constant time, and all of them every time, so that timing
 * tells nothing.
 */
export function keyCheck(keys: readonly string[]): (headers: IncomingHttpHeaders) => string | null {
  if (keys.length === 0) return () => null;
  const digests = keys.map(digest);
  return (headers) => {
    const given = presentedKeys(headers).map(digest);
    let found = -1;
    for (const one of given)
      for (const [i, known] of digests.entries()) found = timingSafeEqual(one, known) ? i : found;
    if (found >= 0) return keys[found]!;
    const what = given.length === 0 ? 'no key' : 'a key that is not known here';
    throw new MoestroError(
      'UNAUTHORIZED',
      `Cannot let the request in: found ${what}, needed "Authorization: Bearer KEY" or "x-api-key: KEY"`,
    );
  };
}

/** Who asks, as far as places are shared: the key where there are keys, which nobody can read back, else the address. */
export function clientOf(
  request: { readonly headers: IncomingHttpHeaders; readonly ip: string },
  hasKeys: boolean,
): string {
  const key = hasKeys ? presentedKeys(request.headers)[0] : undefined;
  return key === undefined ? request.ip : digest(key).toString('base64');
}

function presentedKeys(headers: IncomingHttpHeaders): string[] {
  const bearer = /^Bearer\s+(\S+)\s*$/i.exec(headers.authorization ?? '')?.[1];
  const plain = headers['x-api-key'];
  return [bearer, ...(Array.isArray(plain) ? plain : [plain])].filter(
    (key) => key !== undefined && key !== '',
  ) as string[];
}

const digest = (key: string): Buffer => createHash('sha256').update(key).digest();
