/** How far is one model's next-token distribution from another's? */
import { logSumExp } from './distribution.js';
import { argmax } from './reference-math.js';

/** KL(reference || model) in nats, from two rows of logits or log-probabilities of one length. */
export function klDivergence(reference: Float32Array, model: Float32Array): number {
  const referenceSum = logSumExp(reference);
  const modelSum = logSumExp(model);
  let kl = 0;
  for (let i = 0; i < reference.length; ++i) {
    const p = reference[i]! - referenceSum;
    const share = Math.exp(p);
    // A token the reference rules out adds nothing, whatever the model thinks of it: 0 ln 0 = 0.
    if (share > 0) kl += share * (p - (model[i]! - modelSum));
  }
  return kl;
}

export interface Divergence {
  /** Mean over positions, nats. */
  readonly kl: number;
  /** Percent of positions where both rank the same token first. */
  readonly top1: number;
  readonly positions: number;
}

/** Adds positions up. */
export class DivergenceMeter {
  #kl = 0;
  #same = 0;
  #positions = 0;

  add(reference: Float32Array, model: Float32Array): void {
    this.#kl += klDivergence(reference, model);
    if (argmax(reference, 0, reference.length) === argmax(model, 0, model.length)) ++this.#same;
    ++this.#positions;
  }

  /** Undefined before the first position. */
  result(): Divergence | undefined {
    if (this.#positions === 0) return undefined;
    return {
      kl: this.#kl / this.#positions,
      top1: (100 * this.#same) / this.#positions,
      positions: this.#positions,
    };
  }
}
