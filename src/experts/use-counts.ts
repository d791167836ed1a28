/**
 * How often and how recently each expert was used, kept whether or not it is resident.
 *
 * Decay costs nothing per expert: instead of shrinking old counts, a use at clock c adds 2^(c / halfLife), and all
 * counts are scaled down together when that factor nears the end of a double's range.
 */
import type { UseView } from './eviction/choose-victim.js';

/** Exponent at which all counts are scaled down; a double reaches 2^1023, and sums of uses need room. */
const EXPONENT_MAX = 512;

export class UseCounts implements UseView {
  readonly counts: Float64Array;
  readonly decayed: Float64Array;
  readonly lastUse: Float64Array;
  readonly worth: Float32Array;
  readonly layers: number;
  readonly experts: number;
  readonly #halfLife: number;
  #clock = 0;
  /** Clock at which a use adds exactly 1. */
  #origin = 0;
  /** 2^(-age / halfLife) of the ages that still matter. */
  readonly #byAge: Float64Array;
  #now = 1;

  /**
   * @param halfLife tokens after which a use counts half.
   * @param worth by key, written by its owner.
   */
  constructor(layers: number, experts: number, halfLife: number, worth: Float32Array) {
    const keys = layers * experts;
    this.layers = layers;
    this.experts = experts;
    this.worth = worth;
    this.counts = new Float64Array(keys);
    this.decayed = new Float64Array(keys);
    this.lastUse = new Float64Array(keys).fill(-1);
    this.#halfLife = halfLife;
    this.#byAge = Float64Array.from({ length: Math.ceil(halfLife * 20) }, (_, age) => 2 ** (-age / halfLife));
  }

  /** Tokens seen, as far as decay is concerned. */
  get clock(): number {
    return this.#clock;
  }

  /**
   * A step begins that takes each of its sequences `tokens` further at most. A long prefill chunk counts as two
   * half-lives only: what other sequences use in decoding must not look forgotten after one chunk of a prompt.
   */
  advance(tokens: number): void {
    this.#clock += Math.min(tokens, 2 * this.#halfLife);
    const exponent = (this.#clock - this.#origin) / this.#halfLife;
    if (exponent > EXPONENT_MAX) {
      const factor = 2 ** -exponent;
      for (let key = 0; key < this.decayed.length; ++key) this.decayed[key] = this.decayed[key]! * factor;
      this.#origin = this.#clock;
      this.#now = 1;
    } else {
      this.#now = 2 ** exponent;
    }
  }

  /** One use, `age` tokens before the newest of its sequence in this step. */
  record(key: number, age: number): void {
    this.counts[key] = this.counts[key]! + 1;
    if (age < this.#byAge.length) this.decayed[key] = this.decayed[key]! + this.#now * this.#byAge[age]!;
    const used = Math.max(0, this.#clock - age);
    if (used > this.lastUse[key]!) this.lastUse[key] = used;
  }

  /** Decayed uses as of now. */
  decayedUses(key: number): number {
    return this.decayed[key]! / this.#now;
  }
}
