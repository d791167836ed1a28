/** What one step did, gathered layer by layer. */
import type { MoestroError } from '../errors.js';

/** Made once, for steps of so many rows at most, and cleared for every step. */
export class StepReport {
  hits = 0;
  misses = 0;
  missedBytes = 0;
  readErrors = 0;
  stallMs = 0;
  nativeMs = 0;
  /** First failure of each row, null where all went well. */
  readonly failures: (MoestroError | null)[];
  /** By row, over its (token, expert) pairs: sum of bits, number of pairs, routing mass in all and below the full level. */
  readonly bits: Float64Array;
  readonly pairs: Float64Array;
  readonly mass: Float64Array;
  readonly massBelow: Float64Array;

  constructor(rows: number) {
    this.failures = new Array<MoestroError | null>(rows).fill(null);
    this.bits = new Float64Array(rows);
    this.pairs = new Float64Array(rows);
    this.mass = new Float64Array(rows);
    this.massBelow = new Float64Array(rows);
  }

  clear(): void {
    this.hits = 0;
    this.misses = 0;
    this.missedBytes = 0;
    this.readErrors = 0;
    this.stallMs = 0;
    this.nativeMs = 0;
    this.failures.fill(null);
    this.bits.fill(0);
    this.pairs.fill(0);
    this.mass.fill(0);
    this.massBelow.fill(0);
  }
}
