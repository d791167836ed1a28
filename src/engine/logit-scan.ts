/**
 * The passes that a sampler makes over all logits of a vocabulary: the addon makes them in a twentieth of the time
 * (native/kernels/select_logits), and this is the same in TypeScript, for where it is not built.
 */
export interface LogitScan {
  /** The highest logit's token, the lower id among equals; 0 when none is above minus infinity. NaN never wins. */
  largestLogit(logits: Float32Array): number;
  /**
   * Tokens whose logit is at least `least`, to `ids`: in ascending order where they are no more than `most` (0: any
   * number), else the `most` best, best first, lower ids first among equals. Returns how many.
   *
   * @param ids Int32Array of logits.length or more.
   */
  bestLogits(logits: Float32Array, least: number, most: number, ids: Int32Array): number;
}

export const PLAIN_SCAN: LogitScan = {
  largestLogit(logits) {
    let best = 0;
    let max = Number.NEGATIVE_INFINITY;
    for (let id = 0; id < logits.length; ++id) {
      if (logits[id]! > max) {
        max = logits[id]!;
        best = id;
      }
    }
    return best;
  },

  bestLogits(logits, least, most, ids) {
    let count = 0;
    for (let id = 0; id < logits.length; ++id) if (logits[id]! >= least) ids[count++] = id;
    if (most === 0 || count <= most) return count;
    ids.subarray(0, count).sort((a, b) => logits[b]! - logits[a]! || a - b);
    return most;
  },
};

/** Counts the milliseconds spent in a scan: in the engine they are the addon's, not the script's. */
export class TimedScan implements LogitScan {
  readonly #scan: LogitScan;
  readonly #now: () => number;
  #ms = 0;

  constructor(scan: LogitScan, now: () => number) {
    this.#scan = scan;
    this.#now = now;
  }

  largestLogit(logits: Float32Array): number {
    const from = this.#now();
    const best = this.#scan.largestLogit(logits);
    this.#ms += this.#now() - from;
    return best;
  }

  bestLogits(logits: Float32Array, least: number, most: number, ids: Int32Array): number {
    const from = this.#now();
    const count = this.#scan.bestLogits(logits, least, most, ids);
    this.#ms += this.#now() - from;
    return count;
  }

  /** Milliseconds since the last time that it was asked. */
  takeMs(): number {
    const ms = this.#ms;
    this.#ms = 0;
    return ms;
  }
}
