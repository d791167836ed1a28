/**
 * What may a missing bit cost in mode `elastic`? One number for the engine, between 0 (every expert at the full level,
 * whatever it takes) and 1 (no token gets more than its floor from disk), found by a controller: it rises while steps
 * are late and falls while they are early. Planes that are resident cost nothing and are used at any price.
 *
 *     late: slower than the target rate; or, without a target, waiting for the disk for more than a share of the time
 */

export interface GovernorGoal {
  /** Tokens a second that each answer should get; null for `stallShare`. */
  readonly targetTps: number | null;
  /** Share of a step that may be spent waiting for reads. */
  readonly stallShare: number;
}

/** One step in which each sequence ran one token. */
export interface GovernorStep {
  readonly stepMs: number;
  readonly stallMs: number;
}

/** A quarter of the time buys most of the quality: see docs/elastic.md. */
export const DEFAULT_STALL_SHARE = 0.25;
/** Below this price every bit is bought: it is 0. */
const PRICE_MIN = 2 ** -20;
/** Doublings of the price for a step that took twice the time it should; also the most in one step. */
const GAIN = 0.5;
/** Late within a token: doublings of the price for the whole of the deadline. */
const HURRY = 10;

/** The price after one more step. */
export function nextPrice(price: number, { stepMs, stallMs }: GovernorStep, goal: GovernorGoal): number {
  if (!(stepMs > 0)) return price;
  // Both are logarithms of how much too long it took: 0 is on time, 1 twice as long.
  const late =
    goal.targetTps === null
      ? Math.log2((1 - goal.stallShare) / Math.max(1e-3, 1 - stallMs / stepMs))
      : Math.log2((stepMs * goal.targetTps) / 1000);
  const change = GAIN * Math.max(-1, Math.min(1, late));
  const next = Math.max(price, PRICE_MIN) * 2 ** change;
  return next <= PRICE_MIN ? 0 : Math.min(1, next);
}

/**
 * The price in the middle of a step: higher for a token that is behind its share of the deadline.
 *
 * @param done share of the layers that have run, @param elapsedMs since the step began.
 */
export function priceInHurry(price: number, done: number, elapsedMs: number, goal: GovernorGoal): number {
  if (goal.targetTps === null) return price;
  const behind = (elapsedMs * goal.targetTps) / 1000 - done;
  if (behind <= 0) return price;
  return Math.min(1, Math.max(price, PRICE_MIN) * 2 ** (HURRY * behind));
}
