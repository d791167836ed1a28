/** What a replayed policy knows of the past: the same view that the engine's policies have, kept access by access. */
import type { UseView } from '../experts/eviction/choose-victim.js';

/** Exponent at which decayed counts are scaled down, as in experts/use-counts.ts. */
const EXPONENT_MAX = 512;

export class Past implements UseView {
  readonly counts: Float64Array;
  readonly decayed: Float64Array;
  /** Number of the access, so that no two experts are alike. */
  readonly lastUse: Float64Array;
  readonly worth: Float32Array;
  readonly layers: number;
  readonly experts: number;
  /** Uses since the expert was admitted; lost when it goes. */
  readonly sinceAdmission: Float64Array;
  readonly #halfLife: number;
  #exponent = 0;
  #now = 1;
  #accesses = 0;

  /** @param halfLife in tokens. */
  constructor(layers: number, experts: number, halfLife: number) {
    const keys = layers * experts;
    this.layers = layers;
    this.experts = experts;
    this.counts = new Float64Array(keys);
    this.decayed = new Float64Array(keys);
    this.lastUse = new Float64Array(keys).fill(-1);
    this.worth = new Float32Array(keys);
    this.sinceAdmission = new Float64Array(keys);
    this.#halfLife = halfLife;
  }

  get accesses(): number {
    return this.#accesses;
  }

  /** A token begins. */
  advance(): void {
    this.#exponent += 1 / this.#halfLife;
    if (this.#exponent > EXPONENT_MAX) {
      const factor = 2 ** -this.#exponent;
      for (let key = 0; key < this.decayed.length; ++key) this.decayed[key] = this.decayed[key]! * factor;
      this.#exponent = 0;
    }
    this.#now = 2 ** this.#exponent;
  }

  record(key: number): void {
    this.counts[key] = this.counts[key]! + 1;
    this.decayed[key] = this.decayed[key]! + this.#now;
    this.sinceAdmission[key] = this.sinceAdmission[key]! + 1;
    this.lastUse[key] = ++this.#accesses;
  }
}
