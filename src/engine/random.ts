/**
 * The sampler's source of randomness: xoshiro128** seeded through splitmix32, so that a seed repeats an answer on any
 * machine. Both are by Blackman and Vigna, "Scrambled linear pseudorandom number generators", arXiv:1805.01407, and
 * splitmix32 uses the mixing constants of MurmurHash3's finaliser.
 */
export class Random {
  readonly #state = new Uint32Array(4);

  /** @param seed any safe integer, negative ones too; its low and high halves both count. */
  constructor(seed: number) {
    const low = seed | 0;
    const high = Math.floor(seed / 2 ** 32) | 0;
    let mixed = (low ^ Math.imul(high, 0x9e3779b1)) | 0;
    for (let i = 0; i < 4; ++i) {
      mixed = (mixed + 0x9e3779b9) | 0;
      let word = mixed;
      word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
      word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
      this.#state[i] = word ^ (word >>> 16);
    }
    // The one state the generator never leaves.
    if (this.#state.every((word) => word === 0)) this.#state[0] = 1;
  }

  /** Uniform in [0, 1), 32 bits. */
  next(): number {
    const s = this.#state;
    const product = Math.imul(s[1]!, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = s[1]! << 9;
    s[2] = s[2]! ^ s[0]!;
    s[3] = s[3]! ^ s[1]!;
    s[1] = s[1]! ^ s[2]!;
    s[0] = s[0]! ^ s[3]!;
    s[2] = s[2]! ^ shifted;
    s[3] = (s[3]! << 11) | (s[3]! >>> 21);
    return result / 2 ** 32;
  }
}
