/**
 * One step: a batch of tokens through all layers. Decide in one line, act in the next; tensors stay in native memory,
 * and what crosses is ids, weights, plans and counters.
 */
import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { MoestroError } from '../errors.js';
import { createLayerPlan, type LayerPlan, type PlanSettings, planExperts } from '../experts/plan.js';
import { chooseLevels, type LevelLadder } from '../experts/precision.js';
import type { Residency } from '../experts/residency.js';
import type { Architecture } from '../model/manifest.js';
import { COMPLETION_STRIDE, GROUP, GROUP_STRIDE, type NativeEngine, READ_STRIDE } from '../native/binding.js';
import type { Batch } from './batch.js';
import { type ExpertFile, packGroup, packReads, VerifiedPlanes } from './pack.js';

/** Recorded routing in place of the router's: benchmarks only. `step` counts tokens since start, `layer` MoE layers. */
export interface RoutingTrace {
  routingFor(step: number, layer: number, tokenCount: number, ids: Uint16Array, weights: Float32Array): void;
}

export interface ForwardModel extends ExpertFile {
  readonly name: string;
  readonly architecture: Architecture;
  readonly fullLevel: number;
  readonly ladder: LevelLadder;
  readonly trace: RoutingTrace | null;
}

/** What one step did; filled anew by every `run`. */
export interface StepReport {
  hits: number;
  misses: number;
  missedBytes: number;
  readErrors: number;
  stallMs: number;
  nativeMs: number;
  /** First failure of each row, null where all went well. */
  readonly failures: (MoestroError | null)[];
  /** By row, over its (token, expert) pairs: sum of bits, number of pairs, routing mass in all and below the full level. */
  readonly bits: Float64Array;
  readonly pairs: Float64Array;
  readonly mass: Float64Array;
  readonly massBelow: Float64Array;
}

export class Forward {
  readonly report: StepReport;
  readonly #native: NativeEngine;
  readonly #model: ForwardModel;
  readonly #residency: Residency;
  readonly #settings: PlanSettings;
  readonly #now: () => number;
  readonly #plan: LayerPlan;
  readonly #verified: VerifiedPlanes;
  readonly #ids: Uint16Array;
  readonly #weights: Float32Array;
  readonly #levels: Uint8Array;
  readonly #live: Uint8Array;
  readonly #groups: Int32Array;
  readonly #groupIndex: Int32Array;
  readonly #reads: Int32Array;
  readonly #offsets: Float64Array;
  readonly #completions: Int32Array;
  /** errno of each expert's last failed read in this layer; empty unless one failed. */
  readonly #errors = new Map<number, number>();
  #tokensRun = 0;

  constructor(
    native: NativeEngine,
    model: ForwardModel,
    residency: Residency,
    settings: PlanSettings,
    limits: { readonly tokens: number; readonly rows: number },
    now: () => number,
  ) {
    const { expertCount, topK } = model.architecture;
    const pairs = limits.tokens * topK;
    this.#native = native;
    this.#model = model;
    this.#residency = residency;
    this.#settings = settings;
    this.#now = now;
    this.#plan = createLayerPlan(residency.layers, expertCount, limits.tokens, topK);
    this.#verified = new VerifiedPlanes(residency.layers * expertCount, model.geometry);
    this.#ids = new Uint16Array(pairs);
    this.#weights = new Float32Array(pairs);
    this.#levels = new Uint8Array(pairs);
    this.#live = new Uint8Array(limits.tokens);
    this.#groups = new Int32Array(this.#plan.groupExperts.length * GROUP_STRIDE);
    this.#groupIndex = new Int32Array(this.#plan.groupExperts.length);
    this.#reads = new Int32Array(expertCount * READ_STRIDE);
    this.#offsets = new Float64Array(expertCount);
    this.#completions = new Int32Array(Math.max(64, expertCount) * COMPLETION_STRIDE);
    this.report = {
      hits: 0,
      misses: 0,
      missedBytes: 0,
      readErrors: 0,
      stallMs: 0,
      nativeMs: 0,
      failures: new Array<MoestroError | null>(limits.rows).fill(null),
      bits: new Float64Array(limits.rows),
      pairs: new Float64Array(limits.rows),
      mass: new Float64Array(limits.rows),
      massBelow: new Float64Array(limits.rows),
    };
  }

  /** Runs all layers; logits of the batch's rows can be asked for until the next run. */
  run(batch: Batch): StepReport {
    const { architecture, moeLayers } = this.#model;
    const native = this.#native;
    const tokens = batch.tokens;
    this.#begin(batch);
    const ids = this.#ids.subarray(0, tokens * architecture.topK);
    const weights = this.#weights.subarray(0, tokens * architecture.topK);

    let from = this.#now();
    native.setBatch(
      batch.tokenIds.subarray(0, tokens),
      batch.positions.subarray(0, tokens),
      batch.rows.subarray(0, tokens),
      batch.blockTables.subarray(0, batch.rowCount * batch.blocksPerSequence),
      batch.blocksPerSequence,
    );
    native.embed();
    let moe = 0;
    for (let layer = 0; layer < architecture.layerCount; ++layer) {
      native.attention(layer);
      if (layer === moeLayers[moe]) {
        native.route(layer, ids, weights);
        this.report.nativeMs += this.#now() - from;
        this.#model.trace?.routingFor(this.#tokensRun, moe, tokens, ids, weights);
        this.#runExperts(layer, moe++, batch);
        from = this.#now();
      } else {
        native.sharedFfn(layer);
      }
      native.finishLayer(layer, weights);
    }
    this.report.nativeMs += this.#now() - from;
    this.#tokensRun += tokens;
    return this.report;
  }

  #begin(batch: Batch): void {
    const { report } = this;
    report.hits = 0;
    report.misses = 0;
    report.missedBytes = 0;
    report.readErrors = 0;
    report.stallMs = 0;
    report.nativeMs = 0;
    report.failures.fill(null);
    report.bits.fill(0);
    report.pairs.fill(0);
    report.mass.fill(0);
    report.massBelow.fill(0);
    this.#live.fill(1, 0, batch.tokens);
    let longest = 1;
    for (let row = 0; row < batch.rowCount; ++row) longest = Math.max(longest, batch.rowTokens[row]!);
    this.#residency.uses.advance(longest);
  }

  #runExperts(layer: number, moe: number, batch: Batch): void {
    const { report } = this;
    const plan = this.#plan;
    const residency = this.#residency;
    this.#choosePrecision(moe, batch);
    planExperts(
      {
        layer: moe,
        tokens: batch.tokens,
        topK: this.#model.architecture.topK,
        ids: this.#ids,
        weights: this.#weights,
        levels: this.#levels,
        live: this.#live,
      },
      residency,
      this.#settings,
      plan,
    );
    report.hits += plan.hits;
    report.misses += plan.misses;
    const { bitBytes, scaleBytes } = this.#model.geometry;
    report.missedBytes += plan.missedBitSlots * bitBytes + plan.missedScaleSlots * scaleBytes;

    if (plan.waveCount > 0) this.#prepare(0);
    const from = this.#now();
    this.#native.sharedFfn(layer);
    report.nativeMs += this.#now() - from;
    for (let wave = 0; wave < plan.waveCount; ++wave) {
      const hasNext = wave + 1 < plan.waveCount;
      if (hasNext && plan.waveSerial[wave + 1] === 0) this.#prepare(wave + 1);
      this.#runWave(layer, wave, batch);
      this.#landReads();
      residency.release(plan, wave);
      if (hasNext && plan.waveSerial[wave + 1] === 1) this.#prepare(wave + 1);
    }
    assert(residency.readingCount === 0, 'a layer ended with reads on their way');
    this.#errors.clear();
  }

  /** Levels of every (token, rank), the uses that eviction goes by, and what answers were computed at. */
  #choosePrecision(moe: number, batch: Batch): void {
    const { architecture, ladder, fullLevel } = this.#model;
    const { topK, expertCount } = architecture;
    const { report } = this;
    const uses = this.#residency.uses;
    let token = 0;
    for (let row = 0; row < batch.rowCount; ++row) {
      const last = token + batch.rowTokens[row]! - 1;
      for (; token <= last; ++token) {
        if (this.#live[token] === 0) continue;
        chooseLevels(batch.rowIsExact[row] === 1, ladder, this.#weights, topK, token, this.#levels);
        for (let at = token * topK; at < (token + 1) * topK; ++at) {
          uses.record(moe * expertCount + this.#ids[at]!, last - token);
          const level = this.#levels[at]!;
          const weight = this.#weights[at]!;
          report.bits[row] = report.bits[row]! + level;
          report.mass[row] = report.mass[row]! + weight;
          if (level < fullLevel) report.massBelow[row] = report.massBelow[row]! + weight;
        }
        report.pairs[row] = report.pairs[row]! + topK;
      }
    }
  }

  /** Evictions, slots and reads of a wave. */
  #prepare(wave: number): void {
    this.#residency.apply(this.#plan, wave);
    const count = packReads(this.#plan, wave, this.#residency, this.#model, this.#verified, this.#reads, this.#offsets);
    if (count === 0) return;
    const from = this.#now();
    this.#native.submitReads(count, this.#reads, this.#offsets);
    this.report.nativeMs += this.#now() - from;
  }

  #runWave(layer: number, wave: number, batch: Batch): void {
    const plan = this.#plan;
    let count = 0;
    for (let group = plan.waveGroups[wave]!; group < plan.waveGroups[wave + 1]!; ++group) {
      if (packGroup(plan, group, this.#residency, this.#groups, count)) this.#groupIndex[count++] = group;
      else this.#failGroup(layer, group, this.#errors.get(this.#groupKey(group)) ?? 0, batch);
    }
    if (count === 0) return;
    const from = this.#now();
    this.report.stallMs += this.#native.runExperts(layer, count, this.#groups, plan.assignments);
    this.report.nativeMs += this.#now() - from;
    for (let i = 0; i < count; ++i) {
      const error = this.#groups[i * GROUP_STRIDE + GROUP.error]!;
      if (error !== 0) this.#failGroup(layer, this.#groupIndex[i]!, error, batch);
    }
  }

  #groupKey(group: number): number {
    return this.#plan.layer * this.#residency.experts + this.#plan.groupExperts[group]!;
  }

  #landReads(): void {
    const capacity = this.#completions.length / COMPLETION_STRIDE;
    let count = 0;
    do {
      const from = this.#now();
      count = this.#native.takeCompletions(this.#completions);
      this.report.nativeMs += this.#now() - from;
      for (let i = 0; i < count; ++i) {
        const key = this.#completions[i * COMPLETION_STRIDE]!;
        const error = this.#completions[i * COMPLETION_STRIDE + 1]!;
        this.#residency.landed(key, error);
        if (error === 0) {
          this.#verified.landed(key, this.#residency.residentBits[key]!);
        } else {
          this.#errors.set(key, error);
          ++this.report.readErrors;
        }
      }
    } while (count === capacity);
  }

  /** Ends the sequences whose tokens this expert served, and only them; the rest of the step leaves them out. */
  #failGroup(layer: number, group: number, errno: number, batch: Batch): void {
    const plan = this.#plan;
    const first = plan.groupFirst[group]!;
    for (let i = first; i < first + plan.groupCounts[group]!; ++i) {
      const token = Math.floor(plan.assignments[i]! / this.#model.architecture.topK);
      const row = batch.rows[token]!;
      if (this.report.failures[row] !== null) continue;
      this.report.failures[row] = this.#readError(layer, plan.groupExperts[group]!, errno);
      for (let other = 0; other < batch.tokens; ++other) if (batch.rows[other] === row) this.#live[other] = 0;
    }
  }

  #readError(layer: number, expert: number, errno: number): MoestroError {
    const { name } = this.#model;
    const offset = this.#model.expertOffset(layer, expert);
    const errorName = nameOfErrno(errno);
    const found =
      errorName === 'EBADMSG' ? 'its checksum differs' : errorName === 'ENODATA' ? 'the file ends in it' : errorName;
    return new MoestroError(
      'EXPERT_READ_FAILED',
      `Cannot read expert ${layer}/${expert} from "${name}": ${found}, record of ${this.#model.geometry.recordBytes} ` +
        `bytes at offset ${offset}`,
      { layer, expert, offset, errno, errorName },
    );
  }
}

function nameOfErrno(errno: number): string {
  return Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `error ${errno}`;
}
