/** Server-sent events as OpenAI's clients read them: one JSON a `data:` line, comments as pings, [DONE] at the end. */
import { once } from 'node:events';
import type { FastifyReply } from 'fastify';
import { errorBody, requestError } from './errors.js';

export interface EventStreamOptions {
  readonly pingSeconds: number;
  /** Aborts when the client has gone: nothing is written after that. */
  readonly signal: AbortSignal;
}

/**
 * Sends the headers at once, before the first event is there, then each event as it comes. Waits for a reader that is
 * slower than the model. An error ends the stream as an error event, which clients raise; then there is no [DONE].
 */
export async function sendEvents(
  reply: FastifyReply,
  events: AsyncIterable<object>,
  { pingSeconds, signal }: EventStreamOptions,
): Promise<void> {
  const { raw } = reply;
  reply.hijack();
  // A socket that breaks while being written to closes too, and that is what the signal tells.
  raw.on('error', (error) => reply.log.debug({ err: error }, 'the stream broke'));
  for (const [name, value] of Object.entries(reply.getHeaders())) if (value !== undefined) raw.setHeader(name, value);
  raw.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
    // nginx would collect the stream and send it in one piece.
    'x-accel-buffering': 'no',
    // Until the headers, as for every other answer; how long the rest takes is not known yet.
    'openai-processing-ms': String(Math.round(reply.elapsedTime)),
  });
  raw.flushHeaders();

  const write = async (text: string): Promise<void> => {
    if (signal.aborted || raw.destroyed) return;
    const isFull = !raw.write(text);
    pings.refresh();
    // Rejects when the client goes while we wait; the events end for the same reason.
    if (isFull) await once(raw, 'drain', { signal }).catch(() => undefined);
  };
  const pings = setInterval(() => {
    if (!raw.writableNeedDrain) void write(': ping\n\n');
  }, pingSeconds * 1000);

  try {
    for await (const event of events) {
      if (signal.aborted) break;
      await write(`data: ${JSON.stringify(event)}\n\n`);
    }
    await write('data: [DONE]\n\n');
  } catch (thrown) {
    const error = requestError(thrown);
    if (error.code !== 'CANCELLED') reply.log.error({ err: thrown }, 'the answer failed mid-stream');
    await write(`data: ${JSON.stringify(errorBody(error))}\n\n`);
  } finally {
    clearInterval(pings);
    raw.end();
  }
}
