/**
 * Reads before the router has chosen: guesses about the next MoE layer go to the disk while it would idle, through the
 * rest of this layer's work and the next one's attention. When the router has spoken, what was right becomes a demand
 * read (or is there already) and what was wrong is cancelled as far as it is not read.
 *
 * It changes what is resident, never what is computed.
 */
import type { PlanScratch } from '../experts/layer-plan.js';
import type { Routing } from '../experts/plan.js';
import type { PlanSettings } from '../experts/plan-settings.js';
import { BenefitSwitch } from '../experts/prediction/benefit-switch.js';
import { ByteBucket } from '../experts/prediction/byte-bucket.js';
import {
  believed,
  createGuesses,
  type Guesses,
  markExpected,
  rankAbsent,
} from '../experts/prediction/choose-guesses.js';
import { Confidence } from '../experts/prediction/confidence.js';
import { GUESS_LIMITS, guessCapacityLeast, makeRoomForGuess } from '../experts/prediction/guess-limits.js';
import { IdleTime } from '../experts/prediction/idle-time.js';
import { PairStatistics } from '../experts/prediction/pair-statistics.js';
import type { Residency } from '../experts/residency.js';
import { type NativeEngine, READ_STRIDE } from '../native/binding.js';
import type { PrefetchMetrics } from './engine-metrics.js';
import { type ExpertFile, packRead, type VerifiedPlanes } from './pack.js';
import type { StepReport } from './step-report.js';
import type { PrefetchMode } from './types.js';

/** Where guesses come from: the next layer's router asked early, or statistics where routing is recorded. */
export type GuessSource = 'router' | 'statistics';

export interface PrefetchSettings {
  readonly mode: PrefetchMode;
  readonly source: GuessSource;
  /** As GUESS_LIMITS has them, unless a test says otherwise. */
  readonly confidenceLeast: number;
  readonly wasteShare: number;
}

/** READ.priority of a guess. */
const SPECULATION = 2;
const TOKENS_MAX = GUESS_LIMITS.tokensMax;

export class Prefetch {
  readonly #native: NativeEngine;
  readonly #residency: Residency;
  readonly #file: ExpertFile;
  readonly #verified: VerifiedPlanes;
  readonly #settings: PrefetchSettings;
  readonly #scratch: PlanScratch;
  readonly #recordBytes: number;
  readonly #topK: number;
  readonly #statistics: PairStatistics | null;
  readonly #confidence = new Confidence();
  readonly #idle = new IdleTime();
  readonly #now: () => number;
  /** When the guesses about #guessedLayer were made. */
  #guessedAt = 0;
  readonly #switch = new BenefitSwitch();
  readonly #bucket: ByteBucket;
  readonly #guesses: Guesses;
  readonly #scores: Float32Array;
  readonly #tokenScores: Float32Array;
  readonly #isExpected: Uint8Array;
  readonly #read = new Int32Array(READ_STRIDE);
  readonly #offset = new Float64Array(1);
  /** By key: 1 while a read on a guess is on its way. */
  readonly #isReading: Uint8Array;
  /** The keys of these. */
  readonly #open: Int32Array;
  #openCount = 0;
  /** The layer that #guesses is about, -1 for none. */
  #guessedLayer = -1;
  #reads = 0;
  #bytes = 0;
  #usefulBytes = 0;
  #lateBytes = 0;
  /** Of reads that were stopped; what was read in vain and then evicted is counted by residency. */
  #stoppedBytes = 0;
  #offReason: string | null = null;
  readonly #before: Uint16Array;
  #isActive = false;
  #tokens = 0;

  constructor(parts: {
    readonly native: NativeEngine;
    readonly residency: Residency;
    readonly file: ExpertFile;
    readonly verified: VerifiedPlanes;
    readonly settings: PrefetchSettings;
    readonly scratch: PlanScratch;
    readonly topK: number;
    readonly now: () => number;
  }) {
    const { residency, file, settings } = parts;
    this.#native = parts.native;
    this.#now = parts.now;
    this.#residency = residency;
    this.#file = file;
    this.#verified = parts.verified;
    this.#settings = settings;
    this.#scratch = parts.scratch;
    this.#topK = parts.topK;
    this.#recordBytes = file.geometry.scaleBytes + residency.fullLevel * file.geometry.bitBytes;
    const keys = residency.layers * residency.experts;
    this.#statistics =
      settings.source === 'statistics' && settings.mode !== 'off'
        ? new PairStatistics(residency.layers, residency.experts)
        : null;
    this.#bucket = new ByteBucket(settings.wasteShare, GUESS_LIMITS.bucketRecords * this.#recordBytes);
    this.#guesses = createGuesses(GUESS_LIMITS.guessesMax, residency.experts);
    this.#scores = new Float32Array(residency.experts);
    this.#tokenScores = new Float32Array(TOKENS_MAX * residency.experts);
    this.#isExpected = new Uint8Array(residency.experts);
    this.#isReading = new Uint8Array(keys);
    this.#open = new Int32Array(4 * GUESS_LIMITS.guessesMax);
    this.#before = new Uint16Array(TOKENS_MAX * parts.topK);
  }

  /** A step of so many tokens begins. */
  begin(tokens: number): void {
    const { mode } = this.#settings;
    const { bitSlots, fullLevel } = this.#residency;
    const keys = this.#residency.residentBits.length;
    const fits = bitSlots >= guessCapacityLeast(this.#topK) * fullLevel && bitSlots < keys * fullLevel;
    this.#tokens = tokens;
    this.#isActive = mode !== 'off' && fits && tokens <= TOKENS_MAX && (mode === 'on' || this.#switch.isOn);
    this.#guessedLayer = -1;
  }

  /** Asks for what MoE layer `moe` will probably want; `modelLayer` is its number in the model. */
  guess(moe: number, modelLayer: number, plan: PlanSettings): void {
    if (!this.#isActive) return;
    const residency = this.#residency;
    const first = moe * residency.experts;
    this.#score(moe, modelLayer);
    const isAbsent = (expert: number) =>
      residency.residentBits[first + expert] === 0 && residency.readingBits[first + expert] === 0;
    const guesses = rankAbsent(this.#scores, this.#topK * this.#tokens, isAbsent, this.#guesses);
    this.#guessedLayer = moe;
    this.#guessedAt = this.#now();
    const count = believed(guesses, this.#confidence, this.#idle, this.#settings.confidenceLeast);
    markExpected(this.#scores, this.#topK * this.#tokens, guesses, count, this.#isExpected);
    for (let i = 0; i < count && this.#openCount < this.#open.length; ++i) {
      if (
        this.#bucket.bytes < this.#recordBytes ||
        !makeRoomForGuess(moe, this.#isExpected, this.#residency, plan, this.#scratch)
      )
        return;
      this.#submit(first + guesses.experts[i]!);
    }
  }

  /**
   * The router has chosen: right guesses go on as demand reads, wrong ones stop. Afterwards no expert that is wanted has a
   * read on its way that brings too few bits.
   *
   * @param land takes completions: when told to, waits for one.
   */
  settle(routing: Routing, land: (wait: boolean) => void): void {
    if (this.#settings.mode === 'off') return;
    const windowMs = this.#guessedLayer === routing.layer ? this.#now() - this.#guessedAt : 0;
    this.#learn(routing);
    const residency = this.#residency;
    const first = routing.layer * residency.experts;
    if (this.#openCount > 0) land(false);
    for (let i = 0; i < this.#openCount; ++i) {
      const key = this.#open[i]!;
      if (residency.readingBits[key] === 0) continue;
      const isOfLayer = key >= first && key < first + residency.experts;
      const wanted = isOfLayer ? wantedBits(routing, key - first) : 0;
      if (wanted > 0 && wanted <= residency.readingBits[key]!) this.#native.promoteRead(key);
      else this.#native.cancelRead(key);
      while (wanted > residency.readingBits[key]! && residency.readingBits[key]! > 0) land(true);
    }
    const isShort = this.#count(routing, first);
    if (windowMs > 0) this.#idle.observe(windowMs, isShort);
  }

  /** A read has ended, of which so many bytes were read. To be told before residency is; false when it was none of ours. */
  landed(key: number, error: number, bytes: number): boolean {
    if (this.#isReading[key] === 0) return false;
    this.#isReading[key] = 0;
    this.#bytes += bytes;
    this.#bucket.refund(this.#recordBytes - bytes);
    if (error === 0) return true;
    if (this.#residency.onProbation[key] === 1) {
      this.#stoppedBytes += bytes;
    } else {
      this.#usefulBytes -= this.#recordBytes;
      this.#lateBytes -= this.#recordBytes;
    }
    return true;
  }

  /** Some read on a guess has not ended. */
  get isReading(): boolean {
    for (let i = 0; i < this.#openCount; ++i) if (this.#isReading[this.#open[i]!] === 1) return true;
    return false;
  }

  metrics(): PrefetchMetrics {
    return {
      reads: this.#reads,
      bytes: this.#bytes,
      usefulBytes: this.#usefulBytes,
      lateBytes: this.#lateBytes,
      wastedBytes: this.#stoppedBytes + this.#residency.probationEvictions * this.#recordBytes,
      offReason: this.#offReason,
    };
  }

  /** A step has ended, and what it reports; of decode steps its milliseconds. */
  end({ missedBytes, misses, stallMs }: StepReport, decodeMs: number | null): void {
    this.#bucket.earn(missedBytes);
    if (this.#isActive) this.#idle.end(stallMs, misses);
    if (this.#settings.mode !== 'auto' || decodeMs === null) return;
    const verdict = this.#switch.stepped(decodeMs);
    if (verdict === null) return;
    this.#offReason = verdict.pays
      ? null
      : `a step took ${verdict.withMs.toFixed(1)} ms with it and ${verdict.withoutMs.toFixed(1)} ms without`;
  }

  #score(moe: number, modelLayer: number): void {
    const scores = this.#scores;
    const { experts } = this.#residency;
    const all = this.#tokenScores;
    if (this.#statistics === null) {
      this.#native.predict(modelLayer, all.subarray(0, this.#tokens * experts));
    } else {
      for (let token = 0; token < this.#tokens; ++token) {
        const from = token * this.#topK;
        const row = all.subarray(token * experts, (token + 1) * experts);
        this.#statistics.score(moe, this.#before, from, this.#topK, row);
      }
    }
    scores.set(all.subarray(0, experts));
    // An expert is as likely as the likeliest of the tokens makes it.
    for (let i = experts; i < this.#tokens * experts; ++i) {
      const expert = i % experts;
      if (all[i]! > scores[expert]!) scores[expert] = all[i]!;
    }
  }

  #submit(key: number): void {
    const residency = this.#residency;
    residency.speculate(key, residency.fullLevel);
    packRead(
      key,
      0,
      residency.fullLevel,
      SPECULATION,
      residency,
      this.#file,
      this.#verified,
      this.#read,
      this.#offset,
      0,
    );
    this.#native.submitReads(1, this.#read, this.#offset);
    this.#isReading[key] = 1;
    this.#bucket.spend(this.#recordBytes);
    this.#open[this.#openCount++] = key;
    ++this.#reads;
  }

  /** What the layer's routing says about guesses made or not made, and about the experts that follow from it. */
  #learn(routing: Routing): void {
    const { layer, ids, topK, tokens } = routing;
    if (this.#guessedLayer === layer) {
      for (let i = 0; i < this.#guesses.count; ++i) {
        const wasRight = wantedBits(routing, this.#guesses.experts[i]!) > 0;
        this.#confidence.observe(this.#guesses.margins[i]!, wasRight);
      }
      this.#guessedLayer = -1;
    }
    if (this.#statistics === null || tokens > TOKENS_MAX) return;
    for (let token = 0; token < tokens; ++token) {
      this.#statistics.observe(layer, this.#before, ids, token * topK, topK);
    }
    this.#before.set(ids.subarray(0, tokens * topK));
  }

  /** Right guesses leave probation, whenever they were made; what is still on its way stays open. Returns whether some right one is. */
  #count(routing: Routing, first: number): boolean {
    const { ids, topK, live } = routing;
    const residency = this.#residency;
    let isLate = false;
    for (let at = 0; at < routing.tokens * topK; ++at) {
      const key = first + ids[at]!;
      if (residency.onProbation[key] === 0 || live[Math.floor(at / topK)] === 0) continue;
      residency.used(key);
      this.#usefulBytes += this.#recordBytes;
      if (residency.readingBits[key]! > 0) {
        this.#lateBytes += this.#recordBytes;
        isLate = true;
      }
      this.#bucket.refund(this.#recordBytes);
    }
    let kept = 0;
    for (let i = 0; i < this.#openCount; ++i) {
      const key = this.#open[i]!;
      if (this.#isReading[key] === 1) this.#open[kept++] = key;
    }
    this.#openCount = kept;
    return isLate;
  }
}

/** Bits at which live tokens want an expert of the layer; 0 when none does. */
function wantedBits(routing: Routing, expert: number): number {
  const { topK, ids, levels, live } = routing;
  let bits = 0;
  for (let at = 0; at < routing.tokens * topK; ++at) {
    if (ids[at] === expert && live[Math.floor(at / topK)] === 1 && levels[at]! > bits) bits = levels[at]!;
  }
  return bits;
}
