/**
 * Replays reads on a guess from index statistics: the rules are those of the engine (engine/prefetch.ts; test/replay holds both to the same reads), one token a step, on
 * the disk of guess-reads.ts. Guesses of the next layer's router are not replayed: they come from hidden states, which no trace holds.
 */
import type { PlanScratch } from '../experts/layer-plan.js';
import type { Routing } from '../experts/plan.js';
import type { PlanSettings } from '../experts/plan-settings.js';
import { ByteBucket } from '../experts/prediction/byte-bucket.js';
import {
  believed,
  createGuesses,
  type Guesses,
  markExpected,
  rankAbsent,
} from '../experts/prediction/choose-guesses.js';
import { Confidence } from '../experts/prediction/confidence.js';
import { GUESS_LIMITS, makeRoomForGuess } from '../experts/prediction/guess-limits.js';
import { IdleTime } from '../experts/prediction/idle-time.js';
import { PairStatistics } from '../experts/prediction/pair-statistics.js';
import { expertCapacity, type Residency } from '../experts/residency.js';
import { type SettledGuesses, settleGuesses } from './guess-reads.js';
import type { MachineModel, SpeculatedBytes } from './types.js';

const NONE: SettledGuesses = { guesses: [], busyMs: 0 };

export class Speculation {
  readonly #residency: Residency;
  readonly #scratch: PlanScratch;
  readonly #machine: MachineModel;
  readonly #topK: number;
  readonly #confidenceLeast: number;
  readonly #statistics: PairStatistics;
  readonly #confidence = new Confidence();
  readonly #idle = new IdleTime();
  readonly #bucket: ByteBucket;
  readonly #guesses: Guesses;
  readonly #scores: Float32Array;
  readonly #isExpected: Uint8Array;
  readonly #before: Uint16Array;
  /** Whether it has room for guesses at all. */
  readonly #isActive: boolean;
  /** Keys whose reads were asked for since the layer before has run, and what became of them. */
  #open: number[] = [];
  #settled = NONE;
  #hasGuessed = false;
  #readBytes = 0;
  #usefulBytes = 0;
  #lateBytes = 0;

  constructor(
    residency: Residency,
    scratch: PlanScratch,
    topK: number,
    machine: MachineModel,
    confidenceLeast: number = GUESS_LIMITS.confidenceLeast,
  ) {
    const { layers, experts } = residency;
    const capacity = expertCapacity(residency);
    this.#residency = residency;
    this.#scratch = scratch;
    this.#machine = machine;
    this.#topK = topK;
    this.#confidenceLeast = confidenceLeast;
    this.#statistics = new PairStatistics(layers, experts);
    this.#bucket = new ByteBucket(GUESS_LIMITS.wasteShare, GUESS_LIMITS.bucketRecords * machine.expertBytes);
    this.#guesses = createGuesses(GUESS_LIMITS.guessesMax, experts);
    this.#scores = new Float32Array(experts);
    this.#isExpected = new Uint8Array(experts);
    this.#before = new Uint16Array(topK);
    this.#isActive = capacity >= GUESS_LIMITS.capacityLeast * topK && capacity < layers * experts;
  }

  /** Reads of guesses that were right and are still on their way, in the order in which they land: milliseconds from now. */
  get lateMs(): number[] {
    return this.#settled.guesses.filter((read) => read.isRight && read.landedMs > 0).map((read) => read.landedMs);
  }

  /** Milliseconds that the disk is busy before the plan's own reads. */
  get busyMs(): number {
    return this.#settled.busyMs;
  }

  /** Of the whole run; what was read and never used counts as wasted, evicted or not. */
  get bytes(): SpeculatedBytes {
    return {
      usefulBytes: this.#usefulBytes - this.#lateBytes,
      lateBytes: this.#lateBytes,
      wastedBytes: this.#readBytes - this.#usefulBytes,
    };
  }

  /** The layer before has run: asks for what `layer` will probably want. */
  guess(layer: number, settings: PlanSettings): void {
    if (!this.#isActive) return;
    const residency = this.#residency;
    const first = layer * residency.experts;
    this.#statistics.score(layer, this.#before, 0, this.#topK, this.#scores);
    const isAbsent = (expert: number) => residency.residentBits[first + expert] === 0;
    const guesses = rankAbsent(this.#scores, this.#topK, isAbsent, this.#guesses);
    this.#hasGuessed = true;
    const count = believed(guesses, this.#confidence, this.#idle, this.#confidenceLeast);
    markExpected(this.#scores, this.#topK, guesses, count, this.#isExpected);
    for (let i = 0; i < count; ++i) {
      if (
        this.#bucket.bytes < this.#machine.expertBytes ||
        !makeRoomForGuess(layer, this.#isExpected, residency, settings, this.#scratch)
      )
        return;
      const key = first + guesses.experts[i]!;
      residency.speculate(key, residency.fullLevel);
      this.#bucket.spend(this.#machine.expertBytes);
      this.#open.push(key);
    }
  }

  /** The router has spoken, and the layer is not planned yet: what is read by now is resident. */
  settle(routing: Routing): void {
    const hadGuessed = this.#hasGuessed;
    this.#learn(routing);
    const residency = this.#residency;
    const first = routing.layer * residency.experts;
    const chosen = new Set(Array.from(routing.ids, (id) => first + id));
    const isRight = this.#open.map((key) => chosen.has(key));
    this.#settled = this.#open.length === 0 ? NONE : settleGuesses(isRight, this.#machine);
    this.#settled.guesses.forEach(({ landedMs }, i) => {
      if (landedMs <= 0) residency.landed(this.#open[i]!, 0);
    });
    for (const key of chosen) {
      if (residency.onProbation[key] === 0) continue;
      residency.used(key);
      this.#usefulBytes += this.#machine.expertBytes;
      if (residency.readingBits[key]! > 0) this.#lateBytes += this.#machine.expertBytes;
      this.#bucket.refund(this.#machine.expertBytes);
    }
    if (hadGuessed) this.#idle.observe(this.#machine.layerMs, this.lateMs.length > 0);
  }

  /** The layer is planned: its last reads on a guess end, landed or stopped. */
  finish(): void {
    this.#settled.guesses.forEach(({ landedMs, readBytes }, i) => {
      if (landedMs > 0) this.#residency.landed(this.#open[i]!, Number.isFinite(landedMs) ? 0 : 1);
      this.#readBytes += readBytes;
      this.#bucket.refund(this.#machine.expertBytes - readBytes);
    });
    this.#open = [];
    this.#settled = NONE;
  }

  /** A token has run, of which so many bytes were missed, and which waited for so many experts. */
  end(demandBytes: number, misses: number, stallMs: number): void {
    this.#bucket.earn(demandBytes);
    if (this.#isActive) this.#idle.end(stallMs, misses);
  }

  #learn({ layer, ids }: Routing): void {
    for (let i = 0; this.#hasGuessed && i < this.#guesses.count; ++i) {
      this.#confidence.observe(this.#guesses.margins[i]!, ids.includes(this.#guesses.experts[i]!));
    }
    this.#hasGuessed = false;
    this.#statistics.observe(layer, this.#before, ids, 0, this.#topK);
    this.#before.set(ids);
  }
}
