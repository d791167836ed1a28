/**
 * The engine: requests in, token events out, one step at a time. Knows neither threads nor messages (worker.ts has
 * them), so it runs the same over the addon and over a scripted one.
 */

import { Formats, type Matcher } from '../constrain/matcher.js';
import type { TokenBytes } from '../constrain/program.js';
import { MoestroError } from '../errors.js';
import type { ChooseVictim } from '../experts/eviction/choose-victim.js';
import { GUESS_LIMITS } from '../experts/prediction/guess-limits.js';
import { DEFAULT_STALL_SHARE, type GovernorGoal, nextPrice, priceInHurry } from '../experts/governor.js';
import { type PlanSettings, planSettings } from '../experts/plan-settings.js';
import { Likeness } from '../experts/likeness.js';
import { planeGains } from '../experts/precision.js';
import { expertCapacity, Residency } from '../experts/residency.js';
import type { NativeEngine } from '../native/binding.js';
import { type Batch, createBatch, fillBatch } from './batch.js';
import { checkDrawing, checkEvaluated, checkTokens } from './check-request.js';
import type { EngineSink } from './engine-sink.js';
import { Evaluation } from './evaluation.js';
import { Gears } from './gears.js';
import { RowFinisher } from './finish-rows.js';
import { Forward, type ForwardModel } from './forward.js';
import { KvBlocks } from './kv-blocks.js';
import { TimedScan } from './logit-scan.js';
import { MemoryKeeper } from './memory-keeper.js';
import { type EngineMemory, KV_BLOCK_TOKENS } from './memory-plan.js';
import type { Pressure } from './memory-watch.js';
import { MetricsCounters } from './metrics-counters.js';
import { OpenSequences } from './open-sequences.js';
import { PrefillShare } from './prefill-share.js';
import { Policies } from './policies.js';
import { PooledStates } from './pooled-states.js';
import { NO_PREFIXES, PrefixCache, type PrefixCacheParts } from './prefix/prefix-cache.js';
import { Sampler, SamplerScratch } from './sampler.js';
import { scheduleStep } from './scheduler.js';
import { Sequence } from './sequence.js';
import type {
  EmbedOptions,
  EngineLive,
  EngineMetrics,
  EvaluateOptions,
  GearMode,
  GenerateRequest,
  MemoryState,
  Mode,
  PrefetchMode,
  Usage,
} from './types.js';
import { TraceRecorder, type TraceSink } from './trace-recorder.js';
import { WeightCounts } from './weight-counts.js';

export interface EngineParts {
  readonly native: NativeEngine;
  readonly model: ForwardModel;
  readonly levels: readonly number[];
  readonly memory: EngineMemory;
  readonly mode: Mode;
  readonly meanBits: number | null;
  /** What elastic answers are held to, and a price that stands in for the governor's: for measurements. */
  readonly targetTps?: number | null;
  readonly elasticPrice?: number;
  readonly maxSequences: number;
  readonly maxQueued: number;
  /** Which streams share steps (gear-policy.ts), and the longest that one should wait for the turns of others. */
  readonly gear?: GearMode;
  readonly tokenGapMs?: number;
  /** Of the vocabulary, for requests with a format. */
  readonly tokenBytes?: TokenBytes;
  readonly sink: EngineSink;
  readonly prefetch: PrefetchMode;
  /** Keeps KV blocks for later requests; absent, none are. */
  readonly prefix?: Pick<PrefixCacheParts, 'modelKey' | 'blockBytes' | 'memoryBytes' | 'opened'>;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
  /** A seed for requests without one. */
  readonly drawSeed: () => number;
  readonly rss: () => { readonly rssBytes: number; readonly peakRssBytes: number };
  /** Keeps the budget while the engine runs; absent, the plan's slots stay as they are. */
  readonly keep?: {
    /** What the process took before the model was loaded. */
    readonly runtimeBytes: number;
    /** Experts for which there are addresses. */
    readonly expertCapacity: number;
    readonly readPressure: () => Pressure;
    /** Read ten times a second: quicker than `rss` where there is a quicker way. */
    readonly readRss?: () => { readonly rssBytes: number };
  };
  /** Half-life of use counts and the plan's settings, for experiments. */
  readonly halfLife?: number;
  readonly settings?: PlanSettings;
  readonly chooseVictim?: ChooseVictim;
  /** Where routing is written to, if anywhere. */
  readonly recordTo?: TraceSink;
}

/** Slots for which there are addresses: those of all experts that could ever be resident. */
export function arenaCapacity(
  { level, shape, bitSlots, scaleSlots }: EngineMemory,
  experts: number,
): { readonly bitCapacity: number; readonly scaleCapacity: number } {
  return {
    bitCapacity: Math.max(bitSlots, experts * level),
    scaleCapacity: Math.max(scaleSlots, Math.min(shape.expertCount, Math.ceil((experts * level) / shape.meanLevel))),
  };
}

/** Readers take in a few words a second: a wait of two seconds is a pause, not an end. */
const TOKEN_GAP_MS = 2000;
/** More streams have turns too short to be of use; 24 KB each on Qwen3-30B's shape. */
const LIKENESS_STREAMS_MAX = 32;

export class Engine {
  readonly residency: Residency;
  /** Called between steps when there may be work again though nobody asked for anything: a stored prefix has come. */
  onWork: () => void = () => {};
  readonly #parts: EngineParts;
  readonly #forward: Forward;
  readonly #vocabSize: number;
  readonly #keeper: MemoryKeeper | null;
  readonly #blocks: KvBlocks;
  readonly #prefixes: PrefixCache | null;
  readonly #open: OpenSequences;
  readonly #rows: RowFinisher;
  readonly #counters = new MetricsCounters();
  readonly #scan: TimedScan;
  readonly #scratch: SamplerScratch;
  readonly #counts: Int32Array;
  readonly #gears: Gears;
  readonly #rests: Uint8Array;
  readonly #prefillShare = new PrefillShare();
  readonly #batch: Batch;
  readonly #policies: Policies;
  readonly #goal: GovernorGoal;
  /** See governor.ts. */
  #price: number;
  #stepStarted = 0;
  readonly #formats: Formats | null;
  #step = 0;
  #bytesRead = 0;

  constructor(parts: EngineParts) {
    const { memory, model } = parts;
    const { plan } = memory;
    this.#parts = parts;
    this.#goal = { targetTps: parts.targetTps ?? null, stallShare: DEFAULT_STALL_SHARE };
    this.#price = parts.elasticPrice ?? 1;
    this.#formats = parts.tokenBytes === undefined ? null : new Formats(parts.tokenBytes);
    this.#policies = new Policies(model.precision, parts.mode, parts.meanBits);
    this.residency = new Residency({
      layers: model.moeLayers.length,
      experts: model.architecture.expertCount,
      bitSlots: memory.bitSlots,
      scaleSlots: memory.scaleSlots,
      fullLevel: memory.level,
      ...(parts.keep === undefined ? {} : arenaCapacity(memory, parts.keep.expertCapacity)),
      topK: model.architecture.topK,
      rows: parts.maxSequences,
      ...(parts.halfLife === undefined ? {} : { halfLife: parts.halfLife }),
    });
    const choose = (): PlanSettings =>
      parts.settings ?? planSettings(this.residency, parts.levels, model.architecture.topK, parts.chooseVictim);
    const limits = { tokens: plan.chunkTokens, rows: parts.maxSequences };
    const prefetch = {
      confidenceLeast: GUESS_LIMITS.confidenceLeast,
      wasteShare: GUESS_LIMITS.wasteShare,
      mode: parts.prefetch,
      source: model.trace === null ? ('router' as const) : ('statistics' as const),
    };
    this.#forward = new Forward(parts.native, model, this.residency, choose(), prefetch, limits, parts.now);
    this.#forward.elasticPrice = (done) =>
      parts.elasticPrice ?? priceInHurry(this.#price, done, parts.now() - this.#stepStarted, this.#goal);
    if (parts.recordTo !== undefined) this.#forward.recorder = this.#makeRecorder(parts.recordTo);
    this.#blocks = new KvBlocks(plan.kvBlocks, KV_BLOCK_TOKENS, plan.contextLength);
    const { native, prefix, now } = parts;
    this.#prefixes = prefix === undefined ? null : new PrefixCache({ native, blocks: this.#blocks, now, ...prefix });
    if (this.#prefixes !== null) this.#prefixes.onLanded = () => this.onWork();
    const isShort = (): boolean => this.#keeper?.isShort ?? false;
    this.#open = new OpenSequences(this.#blocks, parts, parts.now, isShort, this.#prefixes);
    this.#vocabSize = model.architecture.vocabSize;
    this.#keeper = this.#makeKeeper(() => {
      this.#forward.settings = choose();
    });
    if (this.#keeper !== null) this.#forward.onLayerEnd = (now) => this.#keeper?.tick(now);
    this.#rows = new RowFinisher({
      native: parts.native,
      open: this.#open,
      sink: parts.sink,
      vocabSize: this.#vocabSize,
      hiddenSize: model.architecture.hiddenSize,
      contextLength: () => this.#limits.contextLength,
      chunkTokens: plan.chunkTokens,
      maxLogitRows: memory.maxLogitRows,
      now: parts.now,
    });
    this.#scan = new TimedScan(parts.native, parts.now);
    this.#scratch = new SamplerScratch(model.architecture.vocabSize, this.#scan);
    this.#counts = new Int32Array(parts.maxSequences);
    this.#rests = new Uint8Array(parts.maxSequences);
    this.#gears = this.#makeGears();
    this.#batch = createBatch(plan.chunkTokens, parts.maxSequences, this.#blocks.blocksPerSequence);
  }

  get #limits(): { readonly vocabSize: number; readonly contextLength: number } {
    const { contextLength } = this.#parts.memory.plan;
    const blocks = this.#keeper?.kvAfforded ?? this.#blocks.total;
    return { vocabSize: this.#vocabSize, contextLength: Math.min(contextLength, blocks * KV_BLOCK_TOKENS) };
  }

  /** A rate that is promised to each answer is held in joint steps: it is one of steps. */
  #makeGears(): Gears {
    const { gear = 'auto', targetTps, maxSequences, tokenGapMs = TOKEN_GAP_MS } = this.#parts;
    const mode = gear === 'auto' && typeof targetTps === 'number' ? 'joint' : gear;
    const { layers, experts } = this.residency;
    const likeness = new Likeness(layers * experts, Math.min(maxSequences, LIKENESS_STREAMS_MAX));
    if (mode !== 'joint') this.#forward.likeness = likeness;
    return new Gears(mode, tokenGapMs, (first, second) => likeness.of(first, second));
  }

  #makeRecorder(sink: TraceSink): TraceRecorder {
    const { model, memory, levels, maxSequences } = this.#parts;
    const header = {
      format: 'moestro-routing',
      version: 1,
      model: model.name,
      layers: model.moeLayers.length,
      experts: model.architecture.expertCount,
      topK: model.architecture.topK,
      rows: maxSequences,
      fullLevel: memory.level,
      levels: levels.filter((level) => level <= memory.level),
      bitBytes: model.geometry.bitBytes,
      scaleBytes: model.geometry.scaleBytes,
    } as const;
    return new TraceRecorder(header, memory.plan.chunkTokens, sink);
  }

  #makeKeeper(onResize: () => void): MemoryKeeper | null {
    const { native, memory, model, keep, levels, mode, now, rss } = this.#parts;
    if (keep === undefined) return null;
    const ascending = levels.filter((level) => level <= memory.level).sort((a, b) => a - b);
    return new MemoryKeeper({
      native,
      residency: this.residency,
      blocks: this.#blocks,
      shape: { ...memory.shape, expertsMax: Math.min(memory.shape.expertsMax, keep.expertCapacity) },
      levels: ascending,
      gains: mode === 'exact' ? ascending.map(() => 1) : planeGains(model.precision),
      budgetBytes: memory.plan.total,
      runtimeBytes: keep.runtimeBytes,
      readRss: keep.readRss ?? rss,
      readPressure: keep.readPressure,
      now,
      onResize,
      kvLeast: () => this.#open.leastBlocks(),
      shedKv: () => this.#open.shedBlocks(),
    });
  }

  /** As EngineClient.memory; null only asks. */
  memory(budgetBytes: number | null): MemoryState {
    if (this.#keeper === null) {
      throw new MoestroError('INVALID_REQUEST', 'Cannot tell the state of the memory: its slots are fixed');
    }
    return budgetBytes === null ? this.#keeper.state() : this.#keeper.resize(budgetBytes);
  }

  /** Looks after memory and store while nothing runs; true while there is more to do. */
  tend(): boolean {
    const isWriting = this.#prefixes?.writeOne(null) ?? false;
    if (this.#keeper === null) return isWriting;
    this.#keeper.beginStep();
    return this.#keeper.work() || isWriting;
  }

  /**
   * Ends the store of prefixes, with what is still to be written unless the engine broke, and the recording of routing. The
   * native engine comes after.
   */
  async close(isBroken = false): Promise<void> {
    this.#prefixes?.close(isBroken);
    await this.#forward.recorder?.close();
  }

  /** Something can run in the next step. */
  get hasWork(): boolean {
    const { waiting, running } = this.#open;
    if (waiting.length > 0 || (this.#prefixes?.hasLanded ?? false)) return true;
    // The one that another waits for may have gone since.
    return running.some(({ pending, ahead }) => pending > 0 || ahead !== null);
  }

  /** @throws {MoestroError} INVALID_REQUEST, CONTEXT_LENGTH_EXCEEDED, QUEUE_FULL. */
  generate(id: number, request: GenerateRequest): void {
    const { contextLength } = this.#limits;
    checkTokens(request.promptIds, contextLength - 1, this.#limits);
    checkDrawing(request);
    const room = contextLength - request.promptIds.length;
    this.#open.enqueue(
      new Sequence({
        id,
        promptIds: request.promptIds,
        table: this.#open.openTable(),
        policy: this.#policies.of(request.precision),
        maxTokens: Math.min(request.maxTokens ?? room, room),
        stopTokenIds: new Set(request.stopTokenIds),
        minTokens: request.minTokens,
        sampler: new Sampler(request.sampling, this.#parts.drawSeed(), this.#scratch),
        matcher: this.#matcherOf(request),
        mayJump: request.sampling.topLogprobs === null,
        evaluation: null,
        promptLogprobs: request.promptLogprobs,
        priority: request.priority,
        client: request.client,
        usesPrefixes: request.usesPrefixes,
        submittedMs: this.#parts.now(),
      }),
    );
  }

  #matcherOf({ format }: GenerateRequest): Matcher | null {
    if (format === undefined) return null;
    if (this.#formats !== null) return this.#formats.open(format);
    throw new MoestroError(
      'INVALID_REQUEST',
      'Cannot keep to a format: the engine was started without the bytes of its tokens',
    );
  }

  /** Logits after each token from `options.from` on, through `sink.evaluated`. Throws as `generate`. */
  evaluate(id: number, tokenIds: readonly number[], options: EvaluateOptions = {}): void {
    checkTokens(tokenIds, this.#limits.contextLength, this.#limits);
    const from = options.from ?? 0;
    this.#keeper?.ignoreRuntime();
    checkEvaluated(from, tokenIds.length, this.#limits);
    this.#open.enqueue(
      new Sequence({
        id,
        promptIds: tokenIds,
        table: this.#open.openTable(),
        policy: this.#policies.of(options.precision),
        maxTokens: 0,
        stopTokenIds: new Set(),
        sampler: null,
        matcher: null,
        mayJump: false,
        evaluation: new Evaluation(from, tokenIds.length - from, this.#limits.vocabSize),
        submittedMs: this.#parts.now(),
      }),
    );
  }

  /** One vector for the text, through `sink.evaluated`. Throws as `generate`. */
  embed(id: number, tokenIds: readonly number[], { pooling, precision }: EmbedOptions): void {
    checkTokens(tokenIds, this.#limits.contextLength, this.#limits);
    this.#open.enqueue(
      new Sequence({
        id,
        promptIds: tokenIds,
        table: this.#open.openTable(),
        policy: this.#policies.of(precision),
        maxTokens: 0,
        stopTokenIds: new Set(),
        sampler: null,
        matcher: null,
        mayJump: false,
        evaluation: null,
        pooled: new PooledStates(pooling, tokenIds.length, this.#parts.model.architecture.hiddenSize),
        submittedMs: this.#parts.now(),
      }),
    );
  }

  /** Between steps, so the sequence is gone at once. Unknown and finished ids are ignored: the two may cross. */
  abort(id: number): void {
    const open = this.#open.find(id);
    if (open === undefined) return;
    this.#open.close(open);
    ++this.#counters.requestsCancelled;
  }

  /** As abort, for an answer of which its reader wants no more: what it took so far, or null when it had ended. */
  stop(id: number): Usage | null {
    const open = this.#open.find(id);
    if (open === undefined) return null;
    this.#open.close(open);
    return open.usage(this.#parts.now());
  }

  /** The client has read this many token events, also of a sequence that waits for blocks meanwhile. */
  acknowledge(id: number, count: number): void {
    const open = this.#open.find(id);
    if (open !== undefined) open.unread = Math.max(0, open.unread - count);
  }

  /** Ends every open request with the error. */
  failAll(error: MoestroError): void {
    for (const sequence of [...this.#open.running, ...this.#open.waiting]) {
      this.#open.close(sequence);
      this.#parts.sink.failed(sequence.id, error);
    }
  }

  /** Counts routing weights from now on, anew; off, they are forgotten. */
  collectWeights(on: boolean): void {
    this.#forward.weightCounts = on ? new WeightCounts(this.#parts.model.moeLayers.length) : null;
  }

  /** As EngineClient.routingWeights. */
  routingWeights(): Float64Array {
    const { weightCounts } = this.#forward;
    if (weightCounts === null) {
      throw new MoestroError(
        'INVALID_REQUEST',
        'Cannot tell routing weights: nobody counts them, needed collectImportance',
      );
    }
    return weightCounts.counts.slice();
  }

  /** Runs one step; false when there was nothing to run. */
  step(): boolean {
    const started = this.#parts.now();
    this.#stepStarted = started;
    this.#keeper?.beginStep();
    if (!this.#chooseBatch()) return false;
    this.#keeper?.tick();
    const isDecode = this.#open.running.every((sequence, i) => this.#counts[i] === 0 || sequence.isDecoding);
    const report = this.#forward.run(this.#batch);
    const bytesRead = this.#bytesSinceStep(report.misses > 0);

    const stepped = this.#open.running.filter((_, i) => this.#counts[i]! > 0);
    let decoded = 0;
    for (const [row, sequence] of stepped.entries()) {
      const count = this.#batch.rowTokens[row]!;
      if (sequence.isDecoding) decoded += count;
      sequence.lastStep = this.#step;
      sequence.bits += report.bits[row]!;
      sequence.pairs += report.pairs[row]!;
      sequence.mass += report.mass[row]!;
      sequence.massBelow += report.massBelow[row]!;
      // Reads serve the whole batch; each sequence answers for its share of the tokens.
      sequence.bytesRead += (bytesRead * count) / this.#batch.tokens;
      sequence.stallMs += report.stallMs;
      sequence.failure = report.failures[row]!;
      if (sequence.failure !== null) continue;
      sequence.computed += count;
      if (sequence.computed % KV_BLOCK_TOKENS < count) this.#prefixes?.keepWhole(sequence);
    }
    const tokens = this.#batch.tokens;
    const endedMs = this.#parts.now();
    const ran = { isDecode, decoded, stepMs: endedMs - started, stallMs: report.stallMs };
    this.#gears.stepped(stepped, endedMs, ran);
    this.#prefillShare.stepped(decoded, tokens - decoded, ran.stepMs);
    const logitsMs = this.#rows.finishRows(stepped, this.#batch);
    ++this.#step;
    const stepMs = this.#parts.now() - started;
    if (tokens === this.#batch.rowCount)
      this.#price = nextPrice(this.#price, { stepMs, stallMs: report.stallMs }, this.#goal);
    this.#forward.prefetch.end(report.missedBytes, isDecode && tokens === 1 ? stepMs : null);
    this.#counters.stepped(report, {
      isDecode,
      decoded,
      prefilled: tokens - decoded,
      bytesRead,
      stepMs,
      nativeMs: report.nativeMs + logitsMs + this.#scan.takeMs(),
    });
    this.#prefixes?.writeOne(stepMs);
    return true;
  }

  /** Bytes of experts read since the step before. Without misses and guesses there are none, and nobody is asked. */
  #bytesSinceStep(hasMissed: boolean): number {
    if (!hasMissed && this.#parts.prefetch === 'off') return 0;
    const before = this.#bytesRead;
    this.#bytesRead = this.#parts.native.ioStats().bytesRead;
    return this.#bytesRead - before;
  }

  /** Who runs in the next step, with blocks for all of their tokens; false when nobody can. */
  #chooseBatch(): boolean {
    this.#open.admit();
    this.#prefixes?.catchUp(this.#open.running);
    do {
      const { running } = this.#open;
      this.#gears.choose(running, this.#parts.now(), this.#rests);
      if (scheduleStep(running, this.#stepTokens(), this.#counts, this.#rests) === 0) return false;
      this.#open.takeBlocks(this.#counts);
      fillBatch(this.#batch, this.#open.running, this.#counts);
      // None is left when all that were chosen had to give their blocks back: then others are, as far as there are.
    } while (this.#batch.tokens === 0);
    return true;
  }

  /** Tokens of the next step at most. */
  #stepTokens(): number {
    const most = this.#batch.tokenIds.length;
    const { layers, experts } = this.residency;
    if (expertCapacity(this.residency) < layers * experts) return most;
    let decoding = 0;
    for (const { isDecoding } of this.#open.running) if (isDecoding) ++decoding;
    return this.#prefillShare.tokens(decoding, most);
  }

  live(): EngineLive {
    const { layers, experts, residentBits } = this.residency;
    return { layers, experts, residentBits: residentBits.slice(), metrics: this.metrics() };
  }

  metrics(): EngineMetrics {
    return this.#counters.snapshot({
      io: this.#parts.native.ioStats(),
      residency: this.residency,
      prefetch: this.#forward.prefetch.metrics(),
      recording: this.#forward.recorder?.metrics() ?? null,
      sequencesOpen: this.#open.running.length,
      sequencesQueued: this.#open.waiting.length,
      kvBlocksUsed: this.#blocks.used,
      kvBlocksTotal: this.#blocks.total,
      prefix: this.#prefixes?.metrics() ?? NO_PREFIXES,
      budgetBytes: this.#keeper?.state().budgetBytes ?? this.#parts.memory.plan.total,
      memory: this.#keeper?.state() ?? null,
      elasticPrice: this.#price,
      gears: this.#gears.metrics(),
      ...this.#parts.rss(),
    });
  }
}
