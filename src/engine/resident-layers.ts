/**
 * The layers of a small step of which every expert is in memory: native code runs them in one call, as nothing is to be
 * decided, and what they used is written down afterwards. Called layer by layer, a decode step of 48 layers spends a
 * millisecond in code that the weights have pushed out of the processor's caches.
 */
import { expertCapacity, type Residency } from '../experts/residency.js';
import type { Architecture } from '../model/manifest.js';
import { type NativeEngine, REACHED, REACHED_STRIDE } from '../native/binding.js';
import type { Batch } from './batch.js';
import type { StepReport } from './step-report.js';

/** Tokens of a step up to which calls count; larger ones compute for longer than they decide. */
const TOKENS_MAX = 64;
/** After so long the memory is looked after, as after every layer of other steps: sheds must not wait for 100 ms. */
const SPAN_MS = 25;

export class ResidentLayers {
  readonly #native: NativeEngine;
  readonly #residency: Residency;
  readonly #moeLayers: readonly number[];
  readonly #topK: number;
  readonly #fullLevel: number;
  readonly #ids: Uint16Array;
  readonly #weights: Float32Array;
  readonly #tokensMax: number;
  readonly #reached = new Int32Array(REACHED_STRIDE);

  /** @param tokens of a step at most. */
  constructor(
    native: NativeEngine,
    residency: Residency,
    model: { readonly architecture: Architecture; readonly moeLayers: readonly number[]; readonly fullLevel: number },
    tokens: number,
  ) {
    this.#native = native;
    this.#residency = residency;
    this.#moeLayers = model.moeLayers;
    this.#topK = model.architecture.topK;
    this.#fullLevel = model.fullLevel;
    this.#tokensMax = Math.min(tokens, TOKENS_MAX);
    const pairs = model.moeLayers.length * this.#tokensMax * this.#topK;
    this.#ids = new Uint16Array(pairs);
    this.#weights = new Float32Array(pairs);
  }

  /** The level that all of a step runs at where it may run so; null where something is to be decided in each layer. */
  levelOf(batch: Batch): number | null {
    const { layers, experts, readingCount } = this.#residency;
    if (batch.tokens > this.#tokensMax || readingCount > 0 || expertCapacity(this.#residency) < layers * experts) {
      return null;
    }
    const level = batch.rowPolicies[0]!.levels[0]!;
    for (let row = 0; row < batch.rowCount; ++row) {
      const { levels, isElastic } = batch.rowPolicies[row]!;
      if (isElastic === true || levels.length > 1 || levels[0] !== level) return null;
    }
    return level;
  }

  /**
   * Runs layers from `layer` on; returns the first that has not ended. Where its router has been asked (`isRouted`), some
   * expert has to be read for it.
   */
  run(layer: number, level: number): number {
    const { residentBits, scaleSlotOf, bitSlotOf } = this.#residency;
    this.#native.runLayers(
      layer,
      level,
      SPAN_MS,
      residentBits,
      scaleSlotOf,
      bitSlotOf,
      this.#ids,
      this.#weights,
      this.#reached,
    );
    return this.#reached[REACHED.layer]!;
  }

  get isRouted(): boolean {
    return this.#reached[REACHED.isRouted] === 1;
  }

  /** What the router of MoE layer `moe` has chosen, as `route` gives it. */
  copyRouting(moe: number, ids: Uint16Array, weights: Float32Array): void {
    ids.set(this.#ids.subarray(moe * ids.length, (moe + 1) * ids.length));
    weights.set(this.#weights.subarray(moe * ids.length, (moe + 1) * ids.length));
  }

  /**
   * Writes down what the layers run since MoE layer `moe` took, those below `end`. Returns the MoE layer to come.
   */
  account(moe: number, end: number, level: number, batch: Batch, report: StepReport): number {
    report.hits += this.#reached[REACHED.experts]!;
    for (; moe < this.#moeLayers.length && this.#moeLayers[moe]! < end; ++moe) this.#count(moe, level, batch, report);
    return moe;
  }

  /** The uses that eviction goes by should the budget shrink, and what answers were computed at. */
  #count(moe: number, level: number, batch: Batch, report: StepReport): void {
    const topK = this.#topK;
    const { uses, experts } = this.#residency;
    const first = moe * experts;
    let at = moe * batch.tokens * topK;
    for (let row = 0; row < batch.rowCount; ++row) {
      const tokens = batch.rowTokens[row]!;
      let mass = 0;
      for (let age = tokens - 1; age >= 0; --age) {
        for (const end = at + topK; at < end; ++at) {
          uses.record(first + this.#ids[at]!, age);
          mass += this.#weights[at]!;
        }
      }
      report.bits[row] = report.bits[row]! + level * tokens * topK;
      report.pairs[row] = report.pairs[row]! + tokens * topK;
      report.mass[row] = report.mass[row]! + mass;
      if (level < this.#fullLevel) report.massBelow[row] = report.massBelow[row]! + mass;
    }
  }
}
