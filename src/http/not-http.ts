/** What comes over a connection and is no HTTP request: answered like every other mistake, then the connection closes. */
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { MoestroError } from '../errors.js';
import { errorBody } from './errors.js';

const FAULTS: Readonly<Record<string, readonly [status: number, message: string]>> = {
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'Cannot wait longer: found part of a request, needed all of it'],
  HPE_HEADER_OVERFLOW: [431, 'Cannot read the request: found more than 16 KiB of headers and address, needed less'],
};

export function answerNotHttp(fault: Error & { readonly code?: string }, socket: Socket): void {
  // The client has gone; nobody would read it.
  if (fault.code === 'ECONNRESET' || socket.destroyed) return;
  const [status, message] = FAULTS[fault.code ?? ''] ?? [
    400,
    `Cannot read the request: found no HTTP/1.1 (${fault.message.slice(0, 80)}), needed it`,
  ];
  const body = JSON.stringify(errorBody(new MoestroError('INVALID_REQUEST', message)));
  if (socket.writable) {
    socket.write(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: application/json; charset=utf-8\r\n` +
        `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
    );
  }
  socket.destroySoon();
}
