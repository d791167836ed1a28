/**
 * One answer as its reader sees it: events in the order the engine made them, and an end that may come from the engine,
 * from the reader (`return`) or from a third party (the signal). Written out instead of an async generator because a
 * generator that waits for an event cannot be ended before that event comes.
 */
import { MoestroError } from '../errors.js';
import type { EngineEvent, Usage } from './types.js';

/** Tokens read between two acknowledgements: a fraction of what may stand unread, so that a fast reader never waits. */
const ACKNOWLEDGE_EVERY = 32;

/** What an answer hears of the engine. Nothing comes after a reply, a failure or a finish event. */
export interface Listener {
  event(event: EngineEvent): void;
  reply(value: unknown): void;
  failed(error: MoestroError): void;
}

/** What an answer says to the engine. */
export interface AnswerLine {
  /** Asks for the answer. May fail the listener before it returns. */
  start(listener: Listener): void;
  acknowledge(count: number): void;
  /** Gives the answer up; nothing is heard of it again. */
  abort(): void;
  /** Wants no more of it; the usage so far comes as reply, unless the answer has ended meanwhile. */
  stop(): void;
  /** The answer has ended: forgets the listener. */
  leave(): void;
}

type Next = IteratorResult<EngineEvent, Usage | undefined>;

interface Waiting {
  readonly resolve: (next: Next) => void;
  readonly reject: (error: MoestroError) => void;
}

/** `open` until the engine has ended it, `stopping` between the reader's `return` and the engine's word. */
type State = 'new' | 'open' | 'stopping' | 'ended';

const cancelled = (): MoestroError => new MoestroError('CANCELLED', 'Cannot finish the request: it was cancelled');

export class Answer implements AsyncIterableIterator<EngineEvent, Usage | undefined, undefined> {
  readonly #line: AnswerLine;
  readonly #signal: AbortSignal | undefined;
  #state: State = 'new';
  /** Events that came before they were asked for, and readers that asked before events came: one of them is empty. */
  #events: EngineEvent[] = [];
  readonly #waiting: Waiting[] = [];
  /** Thrown once, after the events before it. */
  #failure: MoestroError | undefined;
  #usage: Usage | undefined;
  #tokensRead = 0;
  readonly #onAbort = (): void => this.#abort();
  #onStopped = (): void => {};
  #stopped: Promise<void> | undefined;

  /** Nothing is asked of the engine before the first `next`. */
  constructor(line: AnswerLine, signal: AbortSignal | undefined) {
    this.#line = line;
    this.#signal = signal;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Next> {
    if (this.#state === 'new') this.#start();
    const event = this.#events.shift();
    if (event !== undefined) return Promise.resolve(this.#handOut(event));
    if (this.#failure !== undefined) {
      const failure = this.#failure;
      this.#failure = undefined;
      return Promise.reject(failure);
    }
    if (this.#state !== 'open') return Promise.resolve(this.#done());
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
    });
  }

  /** Ends the answer; a `next` that waits is done at once. The usage so far counts the tokens that were read. */
  async return(): Promise<Next> {
    this.#events = [];
    this.#failure = undefined;
    if (this.#state === 'new') this.#state = 'ended';
    if (this.#state === 'open') {
      this.#state = 'stopping';
      this.#signal?.removeEventListener('abort', this.#onAbort);
      this.#stopped = new Promise((resolve) => {
        this.#onStopped = resolve;
      });
      this.#line.stop();
      for (const { resolve } of this.#waiting.splice(0)) resolve({ done: true, value: undefined });
    }
    await this.#stopped;
    return this.#done();
  }

  #start(): void {
    this.#state = 'open';
    if (this.#signal?.aborted) {
      this.#end(cancelled());
      return;
    }
    this.#signal?.addEventListener('abort', this.#onAbort, { once: true });
    this.#line.start({
      event: (event) => {
        if (event.kind === 'finish') {
          this.#usage = event.usage;
          this.#line.leave();
        }
        if (this.#state === 'open') {
          const reader = this.#waiting.shift();
          if (reader === undefined) this.#events.push(event);
          else reader.resolve(this.#handOut(event));
        }
        if (event.kind === 'finish') this.#end(undefined);
      },
      reply: (usage) => {
        this.#usage = (usage as Usage | null) ?? undefined;
        this.#end(undefined);
      },
      failed: (error) => this.#end(this.#state === 'open' ? error : undefined),
    });
  }

  #abort(): void {
    this.#line.abort();
    this.#events = [];
    this.#end(cancelled());
  }

  #end(failure: MoestroError | undefined): void {
    this.#state = 'ended';
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#failure = failure;
    this.#onStopped();
    for (const reader of this.#waiting.splice(0)) this.next().then(reader.resolve, reader.reject);
  }

  #handOut(event: EngineEvent): Next {
    if (event.kind === 'token' && ++this.#tokensRead % ACKNOWLEDGE_EVERY === 0 && this.#state === 'open') {
      this.#line.acknowledge(ACKNOWLEDGE_EVERY);
    }
    return { done: false, value: event };
  }

  /** The engine may have been ahead of the reader: tokens that nobody read are not part of the answer. */
  #done(): Next {
    const usage = this.#usage;
    return { done: true, value: usage && { ...usage, completionTokens: this.#tokensRead } };
  }
}
