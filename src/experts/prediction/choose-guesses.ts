/** Which experts of the next layer are worth a read before its router has spoken? */
import type { Confidence } from './confidence.js';
import type { IdleTime } from './idle-time.js';

/** Guesses about one layer, best first; made at start, filled anew for every layer. */
export interface Guesses {
  count: number;
  readonly experts: Int32Array;
  /** How far the score stands above the marginal one, in standard deviations. */
  readonly margins: Float32Array;
  readonly sorted: Float32Array;
}

/** @param most guesses it holds; `experts` of a layer. */
export function createGuesses(most: number, experts: number): Guesses {
  return {
    count: 0,
    experts: new Int32Array(most),
    margins: new Float32Array(most),
    sorted: new Float32Array(experts),
  };
}

/**
 * The best-scored experts of a layer that are not resident.
 *
 * @param scores Float32Array [experts], higher is likelier; read, never changed.
 * @param chosen experts that the router will choose about: top-k times tokens.
 * @param isAbsent by expert of the layer: neither resident nor on its way.
 * @returns `guesses`, filled with at most as many as it holds, best first; equal scores by the lower id.
 */
export function rankAbsent(
  scores: Float32Array,
  chosen: number,
  isAbsent: (expert: number) => boolean,
  guesses: Guesses,
): Guesses {
  guesses.count = 0;
  const { marginal, deviation } = spread(scores, chosen, guesses.sorted);
  for (let expert = 0; expert < scores.length; ++expert) {
    const margin = Math.fround((scores[expert]! - marginal) / deviation);
    const last = guesses.count - 1;
    if (guesses.count === guesses.experts.length && margin <= guesses.margins[last]!) continue;
    if (!isAbsent(expert)) continue;
    let at = Math.min(guesses.count, guesses.experts.length - 1);
    if (guesses.count < guesses.experts.length) ++guesses.count;
    for (; at > 0 && margin > guesses.margins[at - 1]!; --at) {
      guesses.experts[at] = guesses.experts[at - 1]!;
      guesses.margins[at] = guesses.margins[at - 1]!;
    }
    guesses.experts[at] = expert;
    guesses.margins[at] = margin;
  }
  return guesses;
}

/** How many of the guesses, from the best on, are believed at least `least`, and worth the disk's time. */
export function believed(guesses: Guesses, confidence: Confidence, idle: IdleTime, least: number): number {
  let count = 0;
  while (count < guesses.count && confidence.of(guesses.margins[count]!) >= Math.max(least, idle.least(count))) ++count;
  return count;
}

/** The experts that may be chosen after all, as a multiple of those that will be; 1.5 and 3 make no difference to bytes. */
export const KEPT_RANKS = 2;

/**
 * Which experts of the layer must not make room for its guesses: the first `count` guesses, and whatever stands so high
 * that the router may choose it. Where nothing tells experts apart none of them stands high.
 *
 * @param guesses as `rankAbsent` made them of these scores.
 * @param isExpected Uint8Array [experts], filled.
 */
export function markExpected(
  scores: Float32Array,
  chosen: number,
  guesses: Guesses,
  count: number,
  isExpected: Uint8Array,
): void {
  // Sorted by rankAbsent.
  const { sorted } = guesses;
  const below = sorted[sorted.length - 1 - KEPT_RANKS * chosen] ?? Number.NEGATIVE_INFINITY;
  for (let expert = 0; expert < scores.length; ++expert) isExpected[expert] = scores[expert]! > below ? 1 : 0;
  for (let i = 0; i < count; ++i) isExpected[guesses.experts[i]!] = 1;
}

/** The score of rank `chosen`, and the standard deviation of all. */
function spread(scores: Float32Array, chosen: number, sorted: Float32Array): { marginal: number; deviation: number } {
  let sum = 0;
  let squares = 0;
  for (const score of scores) {
    sum += score;
    squares += score * score;
  }
  const mean = sum / scores.length;
  const variance = squares / scores.length - mean * mean;
  sorted.set(scores);
  sorted.sort();
  const marginal = sorted[Math.max(0, sorted.length - Math.max(1, chosen))]!;
  return { marginal, deviation: variance > 1e-12 ? Math.sqrt(variance) : 1 };
}
