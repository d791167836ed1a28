/** How large routing weights are, counted while the model reads calibration text. */
import type { Routing } from '../experts/plan.js';
import { WEIGHT_BINS, WEIGHT_BINS_PER_OCTAVE } from './types.js';

export class WeightCounts {
  /** [MoE layers, WEIGHT_BINS] */
  readonly counts: Float64Array;

  /** @param layers those with experts. */
  constructor(layers: number) {
    this.counts = new Float64Array(layers * WEIGHT_BINS);
  }

  /** One layer of one step. */
  add({ layer, tokens, topK, weights, live }: Routing): void {
    for (let at = 0; at < tokens * topK; ++at) {
      if (live[Math.floor(at / topK)] === 0) continue;
      const bin = Math.floor(-WEIGHT_BINS_PER_OCTAVE * Math.log2(weights[at]!));
      // What is no number counts as nothing.
      const index = layer * WEIGHT_BINS + (bin >= 0 ? Math.min(bin, WEIGHT_BINS - 1) : bin < 0 ? 0 : WEIGHT_BINS - 1);
      this.counts[index] = this.counts[index]! + 1;
    }
  }
}
