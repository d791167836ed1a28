/** How far is a conversion? In weights, whatever they become. */

export interface ConvertProgress {
  readonly phase: 'dense' | 'experts' | 'done';
  /** Weights converted and in all, and those of them that an earlier run had left done. */
  readonly doneWeights: number;
  readonly totalWeights: number;
  readonly resumedWeights: number;
}

/** Counts weights and reports them. */
export class Progress {
  readonly #total: number;
  readonly #onProgress: ((progress: ConvertProgress) => void) | undefined;
  #done = 0;
  #resumed = 0;

  constructor(totalWeights: number, onProgress: ((progress: ConvertProgress) => void) | undefined) {
    this.#total = totalWeights;
    this.#onProgress = onProgress;
  }

  resumed(weights: number): void {
    this.#resumed += weights;
    this.#done += weights;
  }

  advance(phase: ConvertProgress['phase'], weights: number): void {
    this.#done += weights;
    this.report(phase);
  }

  report(phase: ConvertProgress['phase']): void {
    this.#onProgress?.({
      phase,
      doneWeights: this.#done,
      totalWeights: this.#total,
      resumedWeights: this.#resumed,
    });
  }
}
