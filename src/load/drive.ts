/**
 * Drives a server with so many streams: each asks, reads to the end and asks again at once, until all requests have been
 * made or the time is over. One that is turned away comes back when it was told to.
 */
import { Agent } from 'node:http';
import { isRejected, type TimedAnswer } from './figures.js';
import { streamAnswer } from './streamed-answer.js';

export interface LoadPlan {
  readonly url: URL;
  readonly apiKey: string | null;
  readonly streams: number;
  /** Answers to be asked for in all; Infinity for as long as there is time. */
  readonly requests: number;
  readonly seconds: number;
  /** The body of request number `index`. */
  readonly body: (index: number) => object;
}

export interface LoadClock {
  readonly now: () => number;
  readonly sleep: (ms: number) => Promise<void>;
}

/** Comes back after this where a server does not say when. */
const RETRY_SECONDS = 1;

/** @param onAnswer told of each answer as it ends. Never rejects: answers tell what went wrong. */
export async function driveLoad(
  plan: LoadPlan,
  { now, sleep }: LoadClock,
  onAnswer: (timed: TimedAnswer) => void,
): Promise<readonly TimedAnswer[]> {
  const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
  const answers: TimedAnswer[] = [];
  const endMs = now() + 1000 * plan.seconds;
  let next = 0;
  const stream = async (): Promise<void> => {
    while (next < plan.requests && now() < endMs) {
      const body = plan.body(next++);
      for (let isOver = false; !isOver; ) {
        const askedMs = now();
        const answer = await streamAnswer({ url: plan.url, body, apiKey: plan.apiKey, agent }, now);
        const timed = { askedMs, answer };
        answers.push(timed);
        onAnswer(timed);
        isOver = !isRejected(answer);
        const waitMs = 1000 * (answer.retryAfterSeconds ?? RETRY_SECONDS);
        if (!isOver && now() + waitMs >= endMs) return;
        // A server that is not there is asked no more often than one that is full.
        if (!isOver || (answer.status === 0 && next < plan.requests)) await sleep(waitMs);
      }
    }
  };
  await Promise.all(Array.from({ length: plan.streams }, stream));
  agent.destroy();
  return answers;
}
