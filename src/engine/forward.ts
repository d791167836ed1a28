/**
 * One step: a batch of tokens through all layers. Decide in one line, act in the next; tensors stay in native memory,
 * and what crosses is ids, weights, plans and counters.
 */
import assert from 'node:assert/strict';
import { createLayerPlan, type LayerPlan } from '../experts/layer-plan.js';
import { planExperts, planResident, type Routing } from '../experts/plan.js';
import type { PlanSettings } from '../experts/plan-settings.js';
import type { PrecisionModel } from '../experts/precision.js';
import { expertCapacity, type Residency } from '../experts/residency.js';
import type { RoutingTrace } from '../experts/trace.js';
import type { Architecture } from '../model/manifest.js';
import { COMPLETION_STRIDE, GROUP, GROUP_STRIDE, type NativeEngine, READ_STRIDE } from '../native/binding.js';
import type { Batch } from './batch.js';
import { LayerLevels } from './layer-levels.js';
import { type ExpertFile, packGroup, packReads, VerifiedPlanes } from './pack.js';
import { Prefetch, type PrefetchSettings } from './prefetch.js';
import { readError } from './read-error.js';
import { RecordedRouting } from './recorded-routing.js';
import { ResidentLayers } from './resident-layers.js';
import { StepReport } from './step-report.js';
import type { TraceRecorder } from './trace-recorder.js';
import type { WeightCounts } from './weight-counts.js';

export interface ForwardModel extends ExpertFile {
  readonly name: string;
  readonly architecture: Architecture;
  readonly fullLevel: number;
  readonly precision: PrecisionModel;
  /** Recorded routing in place of the router's: benchmarks only. */
  readonly trace: Pick<RoutingTrace, 'routingFor'> | null;
  /** Whether each stream's experts are other ones than the recording's, so that streams are unlike. */
  readonly isTraceTurned?: boolean;
}

export class Forward {
  readonly report: StepReport;
  readonly prefetch: Prefetch;
  readonly levels: LayerLevels;
  /** Set while routing weights are counted. */
  weightCounts: WeightCounts | null = null;
  readonly #native: NativeEngine;
  readonly #model: ForwardModel;
  readonly #residency: Residency;
  /** Changed between layers only. */
  settings: PlanSettings;
  /** Called with the time when a layer's experts have run and none is in use. */
  onLayerEnd: ((nowMs: number) => void) | null = null;
  /** Writes down what is routed, where that is asked for. */
  recorder: TraceRecorder | null = null;
  readonly #now: () => number;
  readonly #plan: LayerPlan;
  readonly #verified: VerifiedPlanes;
  readonly #routing: Routing;
  readonly #groups: Int32Array;
  readonly #groupIndex: Int32Array;
  readonly #reads: Int32Array;
  readonly #offsets: Float64Array;
  readonly #completions: Int32Array;
  /** errno of each expert's last failed read in this layer; empty unless one failed. */
  readonly #errors = new Map<number, number>();
  readonly #resident: ResidentLayers;
  /** Of the step at hand: see ResidentLayers.levelOf. */
  #plainLevel: number | null = null;
  #mayEvict = true;
  readonly #recorded: RecordedRouting | null;

  constructor(
    native: NativeEngine,
    model: ForwardModel,
    residency: Residency,
    settings: PlanSettings,
    prefetch: PrefetchSettings,
    limits: { readonly tokens: number; readonly rows: number },
    now: () => number,
  ) {
    const { expertCount, topK } = model.architecture;
    const pairs = limits.tokens * topK;
    this.#native = native;
    this.#model = model;
    this.#residency = residency;
    this.settings = settings;
    this.#now = now;
    this.#plan = createLayerPlan(residency.layers, expertCount, limits.tokens, topK);
    this.#verified = new VerifiedPlanes(residency.layers * expertCount, model.geometry);
    this.#routing = {
      layer: 0,
      tokens: 0,
      topK,
      ids: new Uint16Array(pairs),
      weights: new Float32Array(pairs),
      levels: new Uint8Array(pairs),
      live: new Uint8Array(limits.tokens),
    };
    this.#groups = new Int32Array(this.#plan.groupExperts.length * GROUP_STRIDE);
    this.#groupIndex = new Int32Array(this.#plan.groupExperts.length);
    this.#reads = new Int32Array(expertCount * READ_STRIDE);
    this.#offsets = new Float64Array(expertCount);
    this.#completions = new Int32Array(Math.max(64, expertCount) * COMPLETION_STRIDE);
    this.report = new StepReport(limits.rows);
    this.levels = new LayerLevels(residency, model.fullLevel, this.report);
    const { trace, isTraceTurned = false } = model;
    this.#recorded = trace === null ? null : new RecordedRouting(trace, expertCount, isTraceTurned);
    this.#resident = new ResidentLayers(native, residency, model, limits.tokens);
    this.prefetch = new Prefetch({
      native,
      residency,
      file: model,
      verified: this.#verified,
      settings: prefetch,
      scratch: this.#plan.scratch,
      topK,
      now,
    });
  }

  /** The walk of a token: all layers; logits of the batch's rows can be asked for until the next run. */
  run(batch: Batch): StepReport {
    const { architecture, moeLayers } = this.#model;
    const native = this.#native;
    const tokens = batch.tokens;
    this.#begin(batch);
    let from = this.#now();
    native.setBatch(
      batch.tokenIds.subarray(0, tokens),
      batch.positions.subarray(0, tokens),
      batch.rows.subarray(0, tokens),
      batch.blockTables.subarray(0, batch.rowCount * batch.blocksPerSequence),
      batch.blocksPerSequence,
    );
    native.embed();
    this.report.nativeMs += this.#now() - from;
    for (let layer = 0, moe = 0; layer < architecture.layerCount; ) {
      const level = this.#plainLevel;
      if (level !== null) {
        from = this.#now();
        layer = this.#resident.run(layer, level);
        const ended = this.#now();
        this.report.nativeMs += ended - from;
        moe = this.#resident.account(moe, layer, level, batch, this.report);
        this.onLayerEnd?.(ended);
        if (!this.#resident.isRouted) continue;
      }
      this.#runLayer(layer, moe, level !== null, batch);
      if (moeLayers[moe] === layer) ++moe;
      ++layer;
    }
    this.#recorded?.endStep(tokens);
    this.recorder?.endStep();
    return this.report;
  }

  /**
   * One layer, and what it needs decided.
   *
   * @param moe index of the first MoE layer that is not below `layer`.
   * @param isRouted whether its attention and router have run, within a call that ended there.
   */
  #runLayer(layer: number, moe: number, isRouted: boolean, batch: Batch): void {
    const { architecture, moeLayers } = this.#model;
    const native = this.#native;
    const pairs = batch.tokens * architecture.topK;
    const ids = this.#routing.ids.subarray(0, pairs);
    const weights = this.#routing.weights.subarray(0, pairs);
    let from = this.#now();
    if (!isRouted) native.attention(layer);
    if (layer === moeLayers[moe]) {
      if (isRouted) this.#resident.copyRouting(moe, ids, weights);
      else native.route(layer, ids, weights);
      this.report.nativeMs += this.#now() - from;
      from = this.#runExperts(layer, moe++, batch);
      if (this.onLayerEnd !== null) {
        this.onLayerEnd(from);
        from = this.#now();
      }
    } else {
      native.sharedFfn(layer);
    }
    native.finishLayer(layer, weights);
    const next = moeLayers[moe];
    if (moe > 0 && next === layer + 1) {
      this.prefetch.guess(moe, next, this.settings);
      this.recorder?.layerAhead(moe, next);
    }
    this.report.nativeMs += this.#now() - from;
  }

  /** The experts that the router of MoE layer `moe` chose. Returns the time at which they ended. */
  #runExperts(layer: number, moe: number, batch: Batch): number {
    const routing = this.#routing;
    const residency = this.#residency;
    this.#recorded?.replay(moe, batch, routing);
    routing.layer = moe;
    this.levels.choose(batch, routing);
    this.weightCounts?.add(routing);
    this.prefetch.settle(routing, this.#landReads);
    this.recorder?.layer(routing, residency);
    if (this.#mayEvict) residency.reuse.observe(routing, residency.residentBits, expertCapacity(residency));
    if (planResident(routing, residency, this.#plan) && !this.prefetch.isReading) return this.#runResident(layer);
    planExperts(routing, residency, this.settings, this.#plan);
    this.#runPlan(layer, batch);
    return this.#now();
  }

  #begin(batch: Batch): void {
    const { report } = this;
    report.clear();
    this.recorder?.beginStep(batch);
    this.prefetch.begin(batch.tokens);
    this.#routing.tokens = batch.tokens;
    this.#routing.live.fill(1, 0, batch.tokens);
    let longest = 1;
    for (let row = 0; row < batch.rowCount; ++row) longest = Math.max(longest, batch.rowTokens[row]!);
    const isWatched = this.#recorded !== null || this.recorder !== null || this.weightCounts !== null;
    this.#plainLevel = isWatched ? null : this.#resident.levelOf(batch);
    this.levels.begin(batch);
    this.#residency.uses.advance(longest);
    const capacity = expertCapacity(this.#residency);
    // Where everything fits there is no choice to learn for; a budget that shrinks meanwhile counts from the next step on.
    this.#mayEvict = capacity < this.#residency.residentBits.length;
    if (this.#mayEvict) this.#residency.reuse.beginStep(batch.rowCount, batch.rowIds, batch.rowTokens, capacity);
  }

  /**
   * Carries the plan out, wave by wave: the reads of a wave are on their way while the wave before it runs, those of the
   * first one while the shared expert does.
   */
  #runPlan(layer: number, batch: Batch): void {
    const plan = this.#plan;
    const residency = this.#residency;
    this.#countMisses();
    if (plan.waveCount > 0) this.#prepare(0);
    const from = this.#now();
    this.#native.sharedFfn(layer);
    this.report.nativeMs += this.#now() - from;
    for (let wave = 0; wave < plan.waveCount; ++wave) {
      const hasNext = wave + 1 < plan.waveCount;
      if (hasNext && plan.waveSerial[wave + 1] === 0) this.#prepare(wave + 1);
      this.#runWave(layer, wave, batch);
      this.#landReads();
      residency.release(plan, wave);
      if (hasNext && plan.waveSerial[wave + 1] === 1) this.#prepare(wave + 1);
    }
    while (this.prefetch.isReading) this.#landReads(true);
    assert(residency.readingCount === 0, 'a layer ended with reads on their way');
    this.#errors.clear();
  }

  /**
   * The usual layer of a decode step where memory is plenty: nothing is read, nothing changes hands, so one call follows the
   * other. Looks at the clock cost as much as all else here. Returns the time at which it ended.
   */
  #runResident(layer: number): number {
    const plan = this.#plan;
    for (let group = 0; group < plan.groupCount; ++group) packGroup(plan, group, this.#residency, this.#groups, group);
    this.report.hits += plan.hits;
    const from = this.#now();
    this.#native.sharedFfn(layer);
    this.#native.runExperts(layer, plan.groupCount, this.#groups, plan.assignments);
    const ended = this.#now();
    this.report.nativeMs += ended - from;
    return ended;
  }

  #countMisses(): void {
    const { report } = this;
    const plan = this.#plan;
    const { bitBytes, scaleBytes } = this.#model.geometry;
    report.hits += plan.hits;
    report.misses += plan.misses;
    report.missedBytes += plan.missedBitSlots * bitBytes + plan.missedScaleSlots * scaleBytes;
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

  /** Reads that have ended become resident; with `wait` until at least one has, if any is on its way. */
  readonly #landReads = (wait = false): void => {
    const capacity = this.#completions.length / COMPLETION_STRIDE;
    let count = 0;
    do {
      const from = this.#now();
      if (wait && count === 0) count = this.#native.waitCompletions(this.#completions);
      else count = this.#native.takeCompletions(this.#completions);
      this.report.nativeMs += this.#now() - from;
      if (wait) this.report.stallMs += this.#now() - from;
      for (let i = 0; i < count; ++i) {
        const at = i * COMPLETION_STRIDE;
        this.#landed(this.#completions[at]!, this.#completions[at + 1]!, this.#completions[at + 2]!);
      }
    } while (count === capacity);
  };

  #landed(key: number, error: number, bytes: number): void {
    const isGuess = this.prefetch.landed(key, error, bytes);
    const isWanted = !isGuess || this.#residency.onProbation[key] === 0;
    this.#residency.landed(key, error);
    if (error === 0) {
      this.#verified.landed(key, this.#residency.residentBits[key]!);
    } else if (isWanted) {
      this.#errors.set(key, error);
      ++this.report.readErrors;
    }
  }

  /** Ends the sequences whose tokens this expert served, and only them; the rest of the step leaves them out. */
  #failGroup(layer: number, group: number, errno: number, batch: Batch): void {
    const plan = this.#plan;
    // Tokens that are left out need a plan in every layer to come.
    this.#plainLevel = null;
    const first = plan.groupFirst[group]!;
    for (let i = first; i < first + plan.groupCounts[group]!; ++i) {
      const token = Math.floor(plan.assignments[i]! / this.#model.architecture.topK);
      const row = batch.rows[token]!;
      if (this.report.failures[row] !== null) continue;
      this.report.failures[row] = readError(this.#model, layer, plan.groupExperts[group]!, errno);
      for (let other = 0; other < batch.tokens; ++other) if (batch.rows[other] === row) this.#routing.live[other] = 0;
    }
  }
}
