/**
 * Under which names the server may be called. A page of another site can point a name of its own at 127.0.0.1 and then
 * call a server there as its own origin, past CORS (DNS rebinding); the name in the Host header gives it away.
 */
import { isIP } from 'node:net';
import type { ServerConfig } from '../config.js';
import { MoestroError } from '../errors.js';

const LOOPBACK = /^(localhost|127(\.\d+){3}|::1)$/;

/**
 * A server on loopback answers to addresses, localhost, and the names it was given; one that listens to a network answers
 * to every name unless it was given some, as nobody knows them all.
 *
 * @throws {MoestroError} HOST_NOT_ALLOWED.
 */
export function checkHost(
  header: string | undefined,
  { host, allowedHosts }: Pick<ServerConfig, 'host' | 'allowedHosts'>,
): void {
  if (allowedHosts.includes('*') || (allowedHosts.length === 0 && !LOOPBACK.test(host))) return;
  const name = (header ?? '').replace(/:\d*$/, '').replace(/\.$/, '').toLowerCase();
  if (isIP(name.replace(/^\[(.*)\]$/, '$1')) !== 0 || name === 'localhost' || name.endsWith('.localhost')) return;
  if (name === host.toLowerCase() || allowedHosts.includes(name)) return;
  throw new MoestroError(
    'HOST_NOT_ALLOWED',
    `Cannot answer under the name "${name}": needed localhost, an address, or a name given by --allowed-host`,
  );
}
