/** Notices a client that closes its connection before its answer is complete. */
import type { FastifyReply } from 'fastify';
import { MoestroError } from '../errors.js';

/**
 * @param onGone is called when it happened, once.
 * @returns a signal that aborts with CANCELLED as soon as the socket closes; it never aborts after a whole answer.
 */
export function clientGone(reply: FastifyReply, onGone: () => void): AbortSignal {
  const controller = new AbortController();
  const gone = () => {
    if (reply.raw.writableFinished || controller.signal.aborted) return;
    onGone();
    controller.abort(new MoestroError('CANCELLED', 'Cannot finish the answer: the client has gone'));
  };
  if (reply.raw.destroyed) gone();
  else reply.raw.once('close', gone);
  return controller.signal;
}
