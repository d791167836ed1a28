/** The logits that an evaluation gathers over its steps. */
export class Evaluation {
  /** The first position whose logits are wanted. */
  readonly from: number;
  /** What all of them take. */
  readonly bytes: number;
  readonly #vocabSize: number;
  #logits: Float32Array | undefined;

  constructor(from: number, positions: number, vocabSize: number) {
    this.from = from;
    this.bytes = positions * vocabSize * 4;
    this.#vocabSize = vocabSize;
  }

  /** Where the logits of `count` positions go: a view of Float32Array [count, vocabSize]. */
  rows(position: number, count: number): Float32Array {
    const first = position - this.from;
    return this.logits().subarray(first * this.#vocabSize, (first + count) * this.#vocabSize);
  }

  /** All of them, Float32Array [positions, vocabSize]. Allocated when first asked for: one that waits takes nothing. */
  logits(): Float32Array {
    this.#logits ??= new Float32Array(this.bytes / 4);
    return this.#logits;
  }
}
