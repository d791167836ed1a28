/**
 * The engine: requests in, token events out, one step at a time. Knows neither threads nor messages (worker.ts has
 * them), so it runs the same over the addon and over a scripted one.
 */

import { MoestroError } from '../errors.js';
import { expertCapacity, type Residency } from '../experts/residency.js';
import { type Batch, createBatch, fillBatch } from './batch.js';
import { ElasticPrice } from './elastic-price.js';
import {
  createForward,
  createGears,
  createKeeper,
  createResidency,
  createRowFinisher,
  type EngineParts,
  settingsNow,
} from './engine-parts.js';
import type { RowFinisher } from './finish-rows.js';
import type { Forward } from './forward.js';
import type { Gears } from './gears.js';
import { KvBlocks } from './kv-blocks.js';
import { TimedScan } from './logit-scan.js';
import type { MemoryKeeper } from './memory-keeper.js';
import { KV_BLOCK_TOKENS } from './memory-plan.js';
import { MetricsCounters } from './metrics-counters.js';
import { OpenSequences } from './open-sequences.js';
import { PrefillShare } from './prefill-share.js';
import { NO_PREFIXES, PrefixCache } from './prefix/prefix-cache.js';
import { scheduleStep } from './scheduler.js';
import type { Sequence } from './sequence.js';
import { SequenceMaker } from './sequence-maker.js';
import type { StepReport } from './step-report.js';
import type { EngineLive, EngineMetrics, MemoryState } from './engine-metrics.js';
import type { EmbedOptions, EvaluateOptions, GenerateRequest, Usage } from './types.js';
import { WeightCounts } from './weight-counts.js';

export class Engine {
  readonly residency: Residency;
  /** Called between steps when there may be work again though nobody asked for anything: a stored prefix has come. */
  onWork: () => void = () => {};
  readonly #parts: EngineParts;
  readonly #forward: Forward;
  readonly #keeper: MemoryKeeper | null;
  readonly #blocks: KvBlocks;
  readonly #prefixes: PrefixCache | null;
  readonly #sequences: SequenceMaker;
  readonly #open: OpenSequences;
  readonly #rows: RowFinisher;
  readonly #counters = new MetricsCounters();
  readonly #scan: TimedScan;
  readonly #counts: Int32Array;
  readonly #gears: Gears;
  readonly #rests: Uint8Array;
  readonly #prefillShare = new PrefillShare();
  readonly #batch: Batch;
  readonly #price: ElasticPrice;
  #step = 0;
  #bytesRead = 0;

  constructor(parts: EngineParts) {
    const { native, prefix, now } = parts;
    const { plan } = parts.memory;
    this.#parts = parts;
    this.#price = new ElasticPrice(parts);
    this.residency = createResidency(parts);
    this.#forward = createForward(parts, this.residency);
    this.#forward.levels.elasticPrice = (done) => this.#price.at(done);
    this.#blocks = new KvBlocks(plan.kvBlocks, KV_BLOCK_TOKENS, plan.contextLength);
    this.#prefixes = prefix === undefined ? null : new PrefixCache({ native, blocks: this.#blocks, now, ...prefix });
    if (this.#prefixes !== null) this.#prefixes.onLanded = () => this.onWork();
    const isShort = (): boolean => this.#keeper?.isShort ?? false;
    this.#open = new OpenSequences(this.#blocks, parts, now, isShort, this.#prefixes);
    this.#keeper = createKeeper(parts, this.residency, this.#blocks, this.#open, () => {
      this.#forward.settings = settingsNow(parts, this.residency);
    });
    if (this.#keeper !== null) this.#forward.onLayerEnd = (nowMs) => this.#keeper?.tick(nowMs);
    this.#scan = new TimedScan(native, now);
    this.#sequences = new SequenceMaker(parts, this.#blocks, this.#keeper, this.#scan);
    this.#rows = createRowFinisher(parts, this.#open, () => this.#sequences.contextLength);
    this.#counts = new Int32Array(parts.maxSequences);
    this.#rests = new Uint8Array(parts.maxSequences);
    this.#gears = createGears(parts, this.residency, this.#forward);
    this.#batch = createBatch(plan.chunkTokens, parts.maxSequences, this.#blocks.blocksPerSequence);
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
    this.#open.enqueue(this.#sequences.toGenerate(id, request));
  }

  /** Logits after each token from `options.from` on, through `sink.evaluated`. Throws as `generate`. */
  evaluate(id: number, tokenIds: readonly number[], options: EvaluateOptions = {}): void {
    this.#open.enqueue(this.#sequences.toEvaluate(id, tokenIds, options));
  }

  /** One vector for the text, through `sink.evaluated`. Throws as `generate`. */
  embed(id: number, tokenIds: readonly number[], options: EmbedOptions): void {
    this.#open.enqueue(this.#sequences.toEmbed(id, tokenIds, options));
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
    this.#price.beginStep(started);
    this.#keeper?.beginStep();
    if (!this.#chooseBatch()) return false;
    this.#keeper?.tick();
    const isDecode = this.#open.running.every((sequence, i) => this.#counts[i] === 0 || sequence.isDecoding);
    const report = this.#forward.run(this.#batch);
    const bytesRead = this.#bytesSinceStep(report.misses > 0);

    const stepped = this.#open.running.filter((_, i) => this.#counts[i]! > 0);
    const decoded = this.#account(stepped, report, bytesRead);
    const tokens = this.#batch.tokens;
    const endedMs = this.#parts.now();
    const ran = { isDecode, decoded, stepMs: endedMs - started, stallMs: report.stallMs };
    this.#gears.stepped(stepped, endedMs, ran);
    this.#prefillShare.stepped(decoded, tokens - decoded, ran.stepMs);
    const logitsMs = this.#rows.finishRows(stepped, this.#batch);
    ++this.#step;
    const stepMs = this.#parts.now() - started;
    if (tokens === this.#batch.rowCount) this.#price.stepped(stepMs, report.stallMs);
    this.#forward.prefetch.end(report, isDecode && tokens === 1 ? stepMs : null);
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

  /** Writes down what the step did for each of its sequences, in order of the batch's rows. Returns tokens decoded. */
  #account(stepped: readonly Sequence[], report: StepReport, bytesRead: number): number {
    let decoded = 0;
    for (const [row, sequence] of stepped.entries()) {
      const count = this.#batch.rowTokens[row]!;
      if (sequence.isDecoding) decoded += count;
      // Reads serve the whole batch; each sequence answers for its share of the tokens.
      sequence.ran(this.#step, report, row, count, (bytesRead * count) / this.#batch.tokens);
      if (sequence.failure !== null) continue;
      if (sequence.computed % KV_BLOCK_TOKENS < count) this.#prefixes?.keepWhole(sequence);
    }
    return decoded;
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
      elasticPrice: this.#price.price,
      gears: this.#gears.metrics(),
      ...this.#parts.rss(),
    });
  }
}
