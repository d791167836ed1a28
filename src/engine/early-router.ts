/**
 * Asks the next MoE layer's router a layer early and keeps what it said until that layer is recorded: for `--record-trace`,
 * whether reads on a guess are on or not.
 */
import { createGuesses, type Guesses, rankAbsent } from '../experts/prediction/choose-guesses.js';
import { type GuessShape, guessShape, type LayerGuesses, marginCode } from '../experts/recorded-guesses.js';

const anyExpert = (): boolean => true;

/** Bytes of what is kept here. */
export function earlyRouterBytes(experts: number, topK: number): number {
  const { guesses, guessTokens } = guessShape(experts, topK);
  return 4 * experts * (guessTokens + 1) + 8 * guesses + 3 * guesses * guessTokens;
}

export class EarlyRouter implements LayerGuesses {
  readonly shape: GuessShape;
  /** Uint16Array, Int8Array [tokens, guesses], best first; of MoE layer `layer`. */
  readonly ids: Uint16Array;
  readonly codes: Int8Array;
  /** -1 before the first. */
  layer = -1;
  readonly #predict: (modelLayer: number, scores: Float32Array) => void;
  readonly #experts: number;
  readonly #topK: number;
  readonly #scores: Float32Array;
  readonly #guesses: Guesses;

  /** @param predict as of the native engine. */
  constructor(experts: number, topK: number, predict: (modelLayer: number, scores: Float32Array) => void) {
    this.shape = guessShape(experts, topK);
    const { guesses, guessTokens } = this.shape;
    this.ids = new Uint16Array(guessTokens * guesses);
    this.codes = new Int8Array(guessTokens * guesses);
    this.#predict = predict;
    this.#experts = experts;
    this.#topK = topK;
    this.#scores = new Float32Array(guessTokens * experts);
    this.#guesses = createGuesses(guesses, experts);
  }

  /** The layer before MoE layer `moe` has run, with `tokens` of at most `shape.guessTokens`. */
  ask(moe: number, modelLayer: number, tokens: number): void {
    const experts = this.#experts;
    const { guesses } = this.shape;
    this.#predict(modelLayer, this.#scores.subarray(0, tokens * experts));
    for (let token = 0; token < tokens; ++token) {
      const scores = this.#scores.subarray(token * experts, (token + 1) * experts);
      const ranked = rankAbsent(scores, this.#topK, anyExpert, this.#guesses);
      for (let i = 0; i < guesses; ++i) {
        this.ids[token * guesses + i] = ranked.experts[i]!;
        this.codes[token * guesses + i] = marginCode(ranked.margins[i]!);
      }
    }
    this.layer = moe;
  }
}
