/** What chat, completions, responses and messages have in common: a model for the request, then an answer, whole or as a stream. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ServedModel } from './model-shelf.js';
import { clientGone } from './client-gone.js';
import { modelFor, type ServerDeps } from './deps.js';
import { type EventFormat, EventStream } from './sse.js';

/** A request that was checked and is under way. */
export type Answer =
  | { readonly whole: () => Promise<object> }
  | { readonly events: AsyncIterable<object>; readonly format: EventFormat };

export interface AnswerParts {
  /** As metrics name it. */
  readonly route: string;
  /** Checks the request and starts it. Throws what is wrong with it. */
  readonly start: (model: ServedModel, signal: AbortSignal) => Answer;
  /** How a stream of which there is nothing yet says that it failed. */
  readonly failure: EventFormat['failure'];
}

/**
 * Answers a request. Mistakes have a status of their own, but for a stream that waits until its model is loaded: its headers go
 * out at once, since clients give up on late ones long before they do on silence, and what fails from then on is an event.
 */
export async function answerRequest(
  deps: ServerDeps,
  request: FastifyRequest,
  reply: FastifyReply,
  { route, start, failure }: AnswerParts,
): Promise<object> {
  const signal = clientGone(reply, () => deps.metrics.countCancelled(route));
  const { pingSeconds } = deps.config;
  const begin = () => new EventStream(reply, { pingSeconds, signal, every: deps.every });
  let stream: EventStream | null = null;
  let answer: Answer;
  try {
    const model = await modelFor(deps, request, reply, () => {
      if (wantsStream(request.body)) stream = begin();
    });
    answer = start(model, signal);
  } catch (thrown) {
    // Set by a callback, which the compiler does not see.
    const begun = stream as EventStream | null;
    if (begun === null) throw thrown;
    await begun.fail(thrown, failure);
    return reply;
  }
  if ('whole' in answer) return answer.whole();
  await (stream ?? begin()).send(answer.events, answer.format);
  return reply;
}

const wantsStream = (body: unknown): boolean =>
  typeof body === 'object' && body !== null && 'stream' in body && body.stream === true;
