/** Server-sent events: headers at once, an event as it comes, pings while there is none. */
import { once } from 'node:events';
import type { FastifyReply } from 'fastify';
import type { MoestroError } from '../errors.js';
import { errorBody, requestError } from './errors.js';
import { type Every, everyMs } from './timers.js';

/** How one API writes its events. */
export interface EventFormat {
  readonly event: (event: object) => string;
  readonly ping: string;
  /** What ends a stream that failed; there is no `end` after it. */
  readonly failure: (error: MoestroError) => string;
  readonly end: string;
}

/** An event with the `event:` line that its type is. */
export const namedEvent = (event: object): string =>
  `event: ${(event as { readonly type: string }).type}\ndata: ${JSON.stringify(event)}\n\n`;

/** A comment: clients of every kind pass over it. */
export const PING_COMMENT = ': ping\n\n';

/** As OpenAI's clients read completions: one JSON a `data:` line, [DONE] at the end, errors as events, which they raise. */
export const COMPLETION_EVENTS: EventFormat = {
  event: (event) => `data: ${JSON.stringify(event)}\n\n`,
  ping: PING_COMMENT,
  failure: (error) => `data: ${JSON.stringify(errorBody(error))}\n\n`,
  end: 'data: [DONE]\n\n',
};

export interface EventStreamOptions {
  readonly pingSeconds: number;
  /** Aborts when the client has gone: nothing is written after that. */
  readonly signal: AbortSignal;
  readonly every?: Every | undefined;
}

/** One stream from its headers to its end. Waits for a reader that is slower than the model. */
export class EventStream {
  readonly #reply: FastifyReply;
  readonly #signal: AbortSignal;
  readonly #pings;
  #ping = PING_COMMENT;

  /** Sends the headers at once; from then on pings, as comments until there are events. */
  constructor(reply: FastifyReply, { pingSeconds, signal, every = everyMs }: EventStreamOptions) {
    this.#reply = reply;
    this.#signal = signal;
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
    this.#pings = every(pingSeconds * 1000, () => {
      if (!raw.writableNeedDrain) void this.#write(this.#ping);
    });
  }

  /** Each event as it comes, then the end: the format's own, or what failed. */
  async send(events: AsyncIterable<object>, format: EventFormat): Promise<void> {
    this.#ping = format.ping;
    try {
      for await (const event of events) {
        if (this.#signal.aborted) break;
        await this.#write(format.event(event));
      }
      await this.#write(format.end);
      this.#close();
    } catch (thrown) {
      await this.fail(thrown, format.failure);
    }
  }

  /** Ends a stream that failed, whether it had events or not. */
  async fail(thrown: unknown, failure: EventFormat['failure']): Promise<void> {
    const error = requestError(thrown);
    if (error.code !== 'CANCELLED') this.#reply.log.error({ err: thrown }, 'the answer failed mid-stream');
    await this.#write(failure(error));
    this.#close();
  }

  #close(): void {
    this.#pings.stop();
    this.#reply.raw.end();
  }

  async #write(text: string): Promise<void> {
    const { raw } = this.#reply;
    if (text === '' || this.#signal.aborted || raw.destroyed) return;
    const isFull = !raw.write(text);
    this.#pings.restart();
    // Rejects when the client goes while we wait; the events end for the same reason.
    if (isFull) await once(raw, 'drain', { signal: this.#signal }).catch(() => undefined);
  }
}
