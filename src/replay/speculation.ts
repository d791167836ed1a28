/**
 * Replays reads on a guess: the rules are those of the engine (engine/prefetch.ts; test/replay holds both to the same reads), one token a step, on the disk of
 * guess-reads.ts. Guesses come from index statistics or, where a recording holds them, from the next layer's router (guess-sources.ts).
 */
import type { PlanScratch } from '../experts/layer-plan.js';
import type { Routing } from '../experts/plan.js';
import type { PlanSettings } from '../experts/plan-settings.js';
import { BenefitSwitch } from '../experts/prediction/benefit-switch.js';
import { ByteBucket } from '../experts/prediction/byte-bucket.js';
import { believed, createGuesses, type Guesses } from '../experts/prediction/choose-guesses.js';
import { Confidence } from '../experts/prediction/confidence.js';
import { GUESS_LIMITS, guessCapacityLeast, makeRoomForGuess } from '../experts/prediction/guess-limits.js';
import { IdleTime } from '../experts/prediction/idle-time.js';
import { expertCapacity, type Residency } from '../experts/residency.js';
import { type SettledGuesses, settleGuesses } from './guess-reads.js';
import type { GuessSource } from './guess-sources.js';
import type { MachineModel, SpeculatedBytes } from './types.js';

export interface HowToGuess {
  readonly machine: MachineModel;
  readonly source: GuessSource;
  /** Compares steps with and without guesses, and makes none while they do not pay. */
  readonly isAuto?: boolean;
  /** As GUESS_LIMITS has it, unless a test says otherwise. */
  readonly confidenceLeast?: number;
}

const NONE: SettledGuesses = { guesses: [], busyMs: 0 };

export class Speculation {
  readonly #residency: Residency;
  readonly #scratch: PlanScratch;
  readonly #machine: MachineModel;
  readonly #source: GuessSource;
  /** Of `auto`; null where guesses are made whether they pay or not. */
  readonly #switch: BenefitSwitch | null;
  readonly #confidenceLeast: number;
  readonly #confidence = new Confidence();
  readonly #idle = new IdleTime();
  readonly #bucket: ByteBucket;
  readonly #guesses: Guesses;
  readonly #isExpected: Uint8Array;
  /** Why there is no room for guesses at all; null where there is. */
  readonly #noRoom: string | null;
  #token = 0;
  #isActive = false;
  /** Steps in which the source could have spoken, and those of them without guesses. */
  #steps = 0;
  #offSteps = 0;
  #offReason: string | null;
  /** Keys whose reads were asked for since the layer before has run, and what became of them. */
  #open: number[] = [];
  #settled = NONE;
  #hasGuessed = false;
  #readBytes = 0;
  #usefulBytes = 0;
  #lateBytes = 0;

  constructor(residency: Residency, scratch: PlanScratch, topK: number, how: HowToGuess) {
    const { machine, source, isAuto = false, confidenceLeast = GUESS_LIMITS.confidenceLeast } = how;
    const { experts } = residency;
    this.#residency = residency;
    this.#scratch = scratch;
    this.#machine = machine;
    this.#source = source;
    this.#switch = isAuto ? new BenefitSwitch() : null;
    this.#confidenceLeast = confidenceLeast;
    this.#bucket = new ByteBucket(GUESS_LIMITS.wasteShare, GUESS_LIMITS.bucketRecords * machine.expertBytes);
    this.#guesses = createGuesses(GUESS_LIMITS.guessesMax, experts);
    this.#isExpected = new Uint8Array(experts);
    this.#noRoom = whyNoRoom(residency, topK);
    this.#offReason = this.#noRoom;
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

  /** In what share of the steps nothing was guessed that could have been, and why when it last came to that. */
  get off(): { readonly share: number; readonly reason: string | null } {
    return { share: this.#offSteps / Math.max(1, this.#steps), reason: this.#offReason };
  }

  /** A token begins, in a step of its own. */
  begin(token: number): void {
    this.#token = token;
    const speaks = this.#source.speaksOf(token);
    this.#isActive = speaks && this.#noRoom === null && (this.#switch?.isOn ?? true);
    if (!speaks) return;
    ++this.#steps;
    if (!this.#isActive) ++this.#offSteps;
  }

  /** The layer before has run: asks for what `layer` will probably want. */
  guess(layer: number, settings: PlanSettings): void {
    if (!this.#isActive) return;
    const residency = this.#residency;
    const first = layer * residency.experts;
    const isAbsent = (expert: number) => residency.residentBits[first + expert] === 0;
    const guesses = this.#guesses;
    if (!this.#source.rank(this.#token, layer, isAbsent, guesses)) return;
    this.#hasGuessed = true;
    const count = believed(guesses, this.#confidence, this.#idle, this.#confidenceLeast);
    this.#source.markExpected(guesses, count, this.#isExpected);
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

  /** The token has run in `stepMs`, of which it waited `stallMs` for so many experts, and so many of its bytes were missed. */
  end(demandBytes: number, misses: number, stallMs: number, stepMs: number): void {
    this.#bucket.earn(demandBytes);
    if (this.#isActive) this.#idle.end(stallMs, misses);
    // The engine compares decode steps only, and a token of which nothing could be guessed stood in a step of a prompt.
    if (this.#switch === null || this.#noRoom !== null || !this.#source.speaksOf(this.#token)) return;
    const verdict = this.#switch.stepped(stepMs);
    if (verdict === null || verdict.pays) return;
    this.#offReason = `a step took ${verdict.withMs.toFixed(1)} ms with it and ${verdict.withoutMs.toFixed(1)} ms without`;
  }

  #learn({ layer, ids }: Routing): void {
    for (let i = 0; this.#hasGuessed && i < this.#guesses.count; ++i) {
      this.#confidence.observe(this.#guesses.margins[i]!, ids.includes(this.#guesses.experts[i]!));
    }
    this.#hasGuessed = false;
    this.#source.observe(layer, ids);
  }
}

/** The rule of the engine, in words; null where guesses have room. */
function whyNoRoom(residency: Residency, topK: number): string | null {
  const capacity = expertCapacity(residency);
  const least = guessCapacityLeast(topK);
  if (capacity < least) return `there are slots for ${capacity} experts, and needed are ${least}`;
  return capacity < residency.layers * residency.experts ? null : 'every expert has a slot';
}
