/** Time as streams need it: an argument, so that a test fires what a server waits for. */

export interface Repeating {
  /** Begins the interval anew. */
  restart(): void;
  stop(): void;
}

/** Calls `fire` every `ms` milliseconds until it is stopped. */
export type Every = (ms: number, fire: () => void) => Repeating;

export const everyMs: Every = (ms, fire) => {
  const timer = setInterval(fire, ms);
  return { restart: () => timer.refresh(), stop: () => clearInterval(timer) };
};
