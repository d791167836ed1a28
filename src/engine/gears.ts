/**
 * The gear that decoding runs in, with its clocks: whose turn it is, how fast each gear was, when to try the other one.
 * What is decided from that is in gear-policy.ts.
 */
import { chooseGear, groupAlike, TURN_TOKENS_MAX, turnMs, turnTokens } from './gear-policy.js';
import type { GearMetrics } from './engine-metrics.js';
import type { Gear, GearMode } from './types.js';

/** Steps of joint decoding that make one measurement. */
const WINDOW_STEPS = 24;
/** Steps after a change that are not measured: the cache still holds what the other gear left. */
const SETTLE_STEPS = 8;
/** After bursts did not pay: how long until they are tried again, doubled each time. */
const RETRY_MS = 20_000;
const RETRY_MAX_MS = 320_000;
/** A rate of joint steps older than this is measured again. */
const STALE_MS = 60_000;
/** Prompt tokens in a step from which nearly all experts are read anyway: every stream may come along. */
const SWEEP_TOKENS = 32;
/** Tokens that are the only way on are few: more than that is a prompt. */
const FORCED_TOKENS_MAX = 16;
/** What a new measurement counts. */
const BLEND = 0.5;

/** A sequence as gears see it. */
export interface Geared {
  readonly id: number;
  readonly pending: number;
  readonly generated: number;
  /** When it last ran, in milliseconds; written here. */
  lastRunMs: number;
}

export interface GearStep {
  readonly isDecode: boolean;
  readonly decoded: number;
  readonly stepMs: number;
  readonly stallMs: number;
}

interface Window {
  steps: number;
  tokens: number;
  ms: number;
  stallMs: number;
}

export class Gears {
  readonly #mode: GearMode;
  readonly #gapMs: number;
  readonly #likeness: (first: number, second: number) => number | null;
  #gear: Gear;
  #switches = 0;
  #turns = 0;
  #gapMaxMs = 0;
  #window: Window = { steps: 0, tokens: 0, ms: 0, stallMs: 0 };
  #settling = 0;
  #stallShare = 0;
  #jointTps: number | null = null;
  #burstTps: number | null = null;
  #jointAtMs = 0;
  /** Streams that the rates are of. */
  #rateStreams = 0;
  #burstStepMs: number | null = null;
  #jointStepMs: number | null = null;
  #retryMs = RETRY_MS;
  #retryAtMs = 0;
  /** The turn under way: who has it, since when, tokens so far. */
  #turn = new Set<number>();
  #turnBeganMs = 0;
  #turnTokens = 0;
  #turnStreams = 0;
  /** Groups when the turn began, and turns begun since the measurement did. */
  #groups = 1;
  #windowTurns = 0;

  /**
   * @param gapMs that no stream should wait longer for its next token than, because of others' turns.
   * @param likeness of two streams, as Likeness.of.
   */
  constructor(mode: GearMode, gapMs: number, likeness: (first: number, second: number) => number | null) {
    this.#mode = mode;
    this.#gapMs = gapMs;
    this.#likeness = likeness;
    this.#gear = mode === 'burst' ? 'burst' : 'joint';
  }

  /**
   * Whom the next step leaves out.
   *
   * @param rests out: 1 for each sequence that waits for its turn.
   */
  choose(sequences: readonly Geared[], nowMs: number, rests: Uint8Array): void {
    rests.fill(0, 0, sequences.length);
    if (this.#mode === 'joint') return;
    const decoding: Geared[] = [];
    let prompts = 0;
    for (const sequence of sequences) {
      // Its reader lags behind: that is no wait for a turn.
      if (sequence.pending === 0) sequence.lastRunMs = nowMs;
      else if (isDecoding(sequence)) decoding.push(sequence);
      else prompts += sequence.pending;
    }
    if (this.#gear === 'joint' && !this.#isWindowFull()) return;
    if (decoding.length < 2) {
      if (this.#mode === 'auto') this.#change('joint');
      return;
    }
    if (prompts >= SWEEP_TOKENS) return;
    if (this.#gear === 'joint' || this.#isTurnOver(decoding, nowMs)) {
      const groups = groupAlike(
        decoding.map(({ id }) => id),
        this.#likeness,
      );
      this.#groups = 1 + Math.max(...groups);
      if (this.#mode === 'auto') this.#shift(decoding.length, nowMs);
      if (this.#gear === 'joint') return;
      this.#nextTurn(decoding, groups, nowMs);
    }
    for (let i = 0; i < sequences.length; ++i) {
      if (isDecoding(sequences[i]!) && !this.#turn.has(sequences[i]!.id)) rests[i] = 1;
    }
  }

  /** A step has run with those of `ran`, whose tokens are drawn next. */
  stepped(ran: readonly Geared[], nowMs: number, step: GearStep): void {
    for (const sequence of ran) {
      if (sequence.generated > 0) this.#gapMaxMs = Math.max(this.#gapMaxMs, nowMs - sequence.lastRunMs);
      sequence.lastRunMs = nowMs;
    }
    if (!step.isDecode) return;
    if (this.#gear === 'burst') {
      this.#turnTokens += 1;
      this.#burstStepMs = blend(this.#burstStepMs, step.stepMs);
    } else {
      this.#jointStepMs = blend(this.#jointStepMs, step.stepMs);
    }
    if (this.#settling > 0) {
      --this.#settling;
      return;
    }
    const window = this.#window;
    ++window.steps;
    window.tokens += step.decoded;
    window.ms += step.stepMs;
    window.stallMs += step.stallMs;
  }

  metrics(): GearMetrics {
    return { gear: this.#gear, switches: this.#switches, turns: this.#turns, gapMaxMs: this.#gapMaxMs };
  }

  /** Joint: so many steps; burst: each group had its turn. */
  #isWindowFull(): boolean {
    const isRound = this.#gear === 'joint' || this.#windowTurns > this.#groups;
    return isRound && this.#window.steps >= WINDOW_STEPS;
  }

  #shift(streams: number, nowMs: number): void {
    // Rates of another number of streams are of another machine, so to speak.
    if (Math.abs(streams - this.#rateStreams) > this.#rateStreams / 4) this.#forgetRates(streams);
    if (!this.#isWindowFull()) return;
    this.#measure(nowMs);
    if (this.#gear === 'burst' && nowMs - this.#jointAtMs > STALE_MS) this.#jointTps = null;
    const gear = chooseGear({
      gear: this.#gear,
      groups: this.#groups,
      stallShare: this.#stallShare,
      turnTokens: turnTokens(this.#groups, this.#gapMs, this.#turnStepMs()),
      jointTps: this.#jointTps,
      burstTps: this.#burstTps,
      mayTry: this.#gear === 'joint' && nowMs >= this.#retryAtMs,
    });
    if (this.#gear === 'burst' && gear === 'burst') {
      this.#retryMs = RETRY_MS;
    } else if (this.#gear === 'burst' && this.#jointTps !== null) {
      // They did not pay.
      this.#retryAtMs = nowMs + this.#retryMs;
      this.#retryMs = Math.min(RETRY_MAX_MS, 2 * this.#retryMs);
    }
    this.#change(gear);
  }

  /** Of a step in a turn; before the first one a guess that gives turns a chance. */
  #turnStepMs(): number {
    return this.#burstStepMs ?? (this.#jointStepMs ?? 0) / 2;
  }

  #measure(nowMs: number): void {
    const { tokens, ms, stallMs } = this.#window;
    const tps = (1000 * tokens) / Math.max(1e-3, ms);
    if (this.#gear === 'joint') {
      this.#jointTps = blend(this.#jointTps, tps);
      this.#jointAtMs = nowMs;
      this.#stallShare = stallMs / Math.max(1e-3, ms);
    } else {
      this.#burstTps = blend(this.#burstTps, tps);
    }
    this.#clearWindow(0);
  }

  #forgetRates(streams: number): void {
    this.#rateStreams = streams;
    this.#jointTps = null;
    this.#burstTps = null;
    this.#burstStepMs = null;
    this.#retryAtMs = 0;
    this.#retryMs = RETRY_MS;
    this.#clearWindow(SETTLE_STEPS);
  }

  #change(gear: Gear): void {
    if (gear === this.#gear) return;
    this.#gear = gear;
    ++this.#switches;
    this.#turn.clear();
    this.#clearWindow(SETTLE_STEPS);
  }

  #clearWindow(settle: number): void {
    this.#window = { steps: 0, tokens: 0, ms: 0, stallMs: 0 };
    this.#settling = settle;
    this.#windowTurns = 0;
  }

  #isTurnOver(decoding: readonly Geared[], nowMs: number): boolean {
    if (!decoding.some(({ id }) => this.#turn.has(id))) return true;
    if (this.#turnTokens >= TURN_TOKENS_MAX) return true;
    // Groups change from turn to turn, so a turn that was fair when it began may be too long for one that waits.
    for (const { id, lastRunMs } of decoding) {
      if (!this.#turn.has(id) && nowMs - lastRunMs + this.#turnStepMs() >= this.#gapMs) return true;
    }
    // Those that came meanwhile wait as well.
    const groups = this.#groups + Math.max(0, decoding.length - this.#turnStreams);
    return nowMs - this.#turnBeganMs >= turnMs(groups, this.#gapMs, this.#turnStepMs());
  }

  /** Whoever has waited longest, and those alike. */
  #nextTurn(decoding: readonly Geared[], groups: readonly number[], nowMs: number): void {
    let next = 0;
    for (let i = 1; i < decoding.length; ++i) {
      if (decoding[i]!.lastRunMs < decoding[next]!.lastRunMs) next = i;
    }
    this.#turn = new Set(decoding.filter((_, i) => groups[i] === groups[next]).map(({ id }) => id));
    this.#turnBeganMs = nowMs;
    this.#turnTokens = 0;
    this.#turnStreams = decoding.length;
    ++this.#turns;
    ++this.#windowTurns;
  }
}

/** Some tokens at once are those that a format leaves no choice about. */
const isDecoding = ({ generated, pending }: Geared): boolean =>
  generated > 0 && pending > 0 && pending <= FORCED_TOKENS_MAX;

const blend = (before: number | null, value: number): number =>
  before === null ? value : before + BLEND * (value - before);
