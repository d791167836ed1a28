/**
 * How often is a guess of such a score right? Learned online, of guesses about experts that are not resident only: those
 * that are resident are easy to name and of no use. Scores are told apart by how far they stand above the score that is
 * just about chosen, in standard deviations of the layer's scores, so that any predictor's numbers will do.
 */

const BINS = 16;
const BIN_WIDTH = 0.2;
const LOWEST = -1;
/** Share of the newest outcome in what is believed. */
const RATE = 0.02;
/** Before anything was seen: guesses are right as often as published for a router asked one layer early, less a margin. */
const PRIOR = 0.5;

export class Confidence {
  readonly #right = new Float64Array(BINS).fill(PRIOR);

  /** Of a score this far above the marginal one, in standard deviations: the share of such guesses that were right. */
  of(margin: number): number {
    return this.#right[binOf(margin)]!;
  }

  observe(margin: number, wasRight: boolean): void {
    const bin = binOf(margin);
    this.#right[bin] = this.#right[bin]! + RATE * ((wasRight ? 1 : 0) - this.#right[bin]!);
  }
}

const binOf = (margin: number): number => Math.max(0, Math.min(BINS - 1, Math.floor((margin - LOWEST) / BIN_WIDTH)));
