/** Where do the guesses of a replay come from? From index statistics, or from what a recording says that routers said early. */
import { type Guesses, KEPT_RANKS, markExpected, rankAbsent } from '../experts/prediction/choose-guesses.js';
import { PairStatistics } from '../experts/prediction/pair-statistics.js';
import { marginOf, type RecordedGuesses } from '../experts/recorded-guesses.js';

export interface GuessSource {
  /** Whether it can say anything in this token. */
  speaksOf(token: number): boolean;
  /** Fills `guesses` with the best of `layer` that are absent; false when it knows nothing of it. */
  rank(token: number, layer: number, isAbsent: (expert: number) => boolean, guesses: Guesses): boolean;
  /** As choose-guesses.ts: which experts of the layer ranked last must not make room for its first `count` guesses. */
  markExpected(guesses: Guesses, count: number, isExpected: Uint8Array): void;
  /** What the router chose: Uint16Array [topK]. */
  observe(layer: number, ids: Uint16Array): void;
}

/** Which experts follow which, learned as the replay goes: experts/prediction/pair-statistics.ts. */
export class StatisticsSource implements GuessSource {
  readonly #statistics: PairStatistics;
  readonly #topK: number;
  readonly #before: Uint16Array;
  readonly #scores: Float32Array;

  constructor(layers: number, experts: number, topK: number) {
    this.#statistics = new PairStatistics(layers, experts);
    this.#topK = topK;
    this.#before = new Uint16Array(topK);
    this.#scores = new Float32Array(experts);
  }

  speaksOf(): boolean {
    return true;
  }

  rank(_token: number, layer: number, isAbsent: (expert: number) => boolean, guesses: Guesses): boolean {
    this.#statistics.score(layer, this.#before, 0, this.#topK, this.#scores);
    rankAbsent(this.#scores, this.#topK, isAbsent, guesses);
    return true;
  }

  markExpected(guesses: Guesses, count: number, isExpected: Uint8Array): void {
    markExpected(this.#scores, this.#topK, guesses, count, isExpected);
  }

  observe(layer: number, ids: Uint16Array): void {
    this.#statistics.observe(layer, this.#before, ids, 0, this.#topK);
    this.#before.set(ids);
  }
}

/** What the next layer's router said a layer early, as recorded. Absent experts beyond the recorded guesses are none here. */
export class RouterSource implements GuessSource {
  readonly #recorded: RecordedGuesses;
  readonly #layers: number;
  readonly #topK: number;
  /** Where the guesses about the layer ranked last begin. */
  #from = 0;

  constructor(recorded: RecordedGuesses, layers: number, topK: number) {
    this.#recorded = recorded;
    this.#layers = layers;
    this.#topK = topK;
  }

  speaksOf(token: number): boolean {
    return this.#recorded.indexOf[token]! >= 0;
  }

  rank(token: number, layer: number, isAbsent: (expert: number) => boolean, guesses: Guesses): boolean {
    const { perToken, indexOf, ids, codes } = this.#recorded;
    const from = (indexOf[token]! * this.#layers + layer) * perToken;
    this.#from = from;
    guesses.count = 0;
    if (marginOf(codes[from]!) === null) return false;
    for (let at = from; at < from + perToken && guesses.count < guesses.experts.length; ++at) {
      const margin = marginOf(codes[at]!);
      if (margin === null || !isAbsent(ids[at]!)) continue;
      guesses.experts[guesses.count] = ids[at]!;
      guesses.margins[guesses.count++] = margin;
    }
    return true;
  }

  markExpected(guesses: Guesses, count: number, isExpected: Uint8Array): void {
    const { perToken, ids, codes } = this.#recorded;
    const kept = Math.min(perToken, KEPT_RANKS * this.#topK);
    // Who is as likely as the first one beyond them does not stand high.
    const below = kept < perToken ? marginOf(codes[this.#from + kept]!) : null;
    isExpected.fill(0);
    for (let at = this.#from; at < this.#from + kept; ++at) {
      const margin = marginOf(codes[at]!);
      if (margin !== null && (below === null || margin > below)) isExpected[ids[at]!] = 1;
    }
    for (let i = 0; i < count; ++i) isExpected[guesses.experts[i]!] = 1;
  }

  observe(): void {}
}
