/** One vector for a text, gathered over the steps of its prefill from the hidden states of its tokens. */
import type { Pooling } from './types.js';

export class PooledStates {
  readonly #pooling: Pooling;
  readonly #length: number;
  readonly #sums: Float64Array;
  /** Tokens that are in already: a sequence that gave its blocks back computes its tokens again. */
  #added = 0;

  /** @param length tokens of the text. */
  constructor(pooling: Pooling, length: number, hiddenSize: number) {
    this.#pooling = pooling;
    this.#length = length;
    this.#sums = new Float64Array(hiddenSize);
  }

  /** The first position from `position` on whose state is wanted, of the `count` that were computed. */
  from(position: number, count: number): number {
    const first = this.#pooling === 'last' ? this.#length - 1 : this.#added;
    return Math.min(position + count, Math.max(position, first));
  }

  /** States of consecutive positions in order, Float32Array [count, hiddenSize]: sums do not depend on how it was cut. */
  add(states: Float32Array, count: number): void {
    const width = this.#sums.length;
    for (let token = 0; token < count; ++token)
      for (let i = 0; i < width; ++i) this.#sums[i] = this.#sums[i]! + states[token * width + i]!;
    this.#added += count;
  }

  /** Float32Array [hiddenSize]: the mean of what was added. */
  vector(): Float32Array {
    return Float32Array.from(this.#sums, (sum) => sum / this.#added);
  }
}
