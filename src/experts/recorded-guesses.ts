/**
 * What did the next layer's router say when it was asked a layer early? The part of a recording (recorded-steps.ts) that reads
 * on a guess can be replayed from. Of each token of a small step and each layer, best first:
 *
 *     [tokens][guesses] of u16 expert ids, then of i8 margins: how far the score stands above the one that is just about chosen, in
 *     fortieths of the standard deviation of all scores, rounded down; -128 where nobody was asked
 *
 * Fortieths: an eighth of what confidence.ts tells apart, so that a margin belongs where it did before it was rounded.
 */
import { GUESS_LIMITS } from './prediction/guess-limits.js';

const MARGIN_UNIT = 0.025;
const NO_GUESS = -128;
/** Bytes of one guess: id and margin. */
const GUESS_BYTES = 3;
/** A reader looks for those that are absent, so many of the best are of no use to it where much is resident. */
const GUESSES_LEAST = 16;

/** How many guesses stand in a recording, by its header; `guessTokens` are tokens of a step up to which there are any. */
export interface GuessShape {
  readonly guesses: number;
  readonly guessTokens: number;
}

/** What a router of so many experts is asked for: twice as many as it will choose, or what else may be read on a guess. */
export function guessShape(experts: number, topK: number): GuessShape {
  return { guesses: Math.min(experts, Math.max(GUESSES_LEAST, 2 * topK)), guessTokens: GUESS_LIMITS.tokensMax };
}

/** Of all tokens that were guessed about; plain data for replays. */
export interface RecordedGuesses {
  readonly perToken: number;
  /** By token of the recording: which of those that were guessed about it is, -1 where its step was too large. */
  readonly indexOf: Int32Array;
  /** Uint16Array, Int8Array [tokens guessed about, layers, perToken], best first. */
  readonly ids: Uint16Array;
  readonly codes: Int8Array;
}

/** Guesses about one layer for the tokens of a step, as they are written down: [tokens, guesses]. */
export interface LayerGuesses {
  readonly ids: Uint16Array;
  readonly codes: Int8Array;
}

/** Bytes of the guesses about one layer in a step of so many tokens. */
export function guessBytes({ guesses, guessTokens }: GuessShape, tokens: number): number {
  return tokens <= guessTokens ? tokens * guesses * GUESS_BYTES : 0;
}

export const marginCode = (margin: number): number => Math.max(-127, Math.min(127, Math.floor(margin / MARGIN_UNIT)));

/** The middle of what was rounded to this code; null where there is no guess. */
export const marginOf = (code: number): number | null => (code === NO_GUESS ? null : (code + 0.5) * MARGIN_UNIT);

/**
 * Writes the guesses about one layer. Returns the offset after them.
 * @param guesses null where the router was not asked.
 */
export function writeGuesses(
  view: DataView,
  offset: number,
  shape: GuessShape,
  tokens: number,
  guesses: LayerGuesses | null,
): number {
  const bytes = guessBytes(shape, tokens);
  const count = bytes / GUESS_BYTES;
  for (let i = 0; i < count; ++i) {
    view.setUint16(offset + 2 * i, guesses === null ? 0 : guesses.ids[i]!, true);
    view.setInt8(offset + 2 * count + i, guesses === null ? NO_GUESS : guesses.codes[i]!);
  }
  return offset + bytes;
}

/**
 * Reads the guesses about one layer into those of `out` from token `index` of those guessed about.
 * @returns what is wrong with them, null when nothing is.
 */
export function readGuesses(
  view: DataView,
  offset: number,
  tokens: number,
  at: { readonly layer: number; readonly layers: number; readonly experts: number; readonly index: number },
  out: RecordedGuesses,
): string | null {
  const { perToken } = out;
  const count = tokens * perToken;
  for (let token = 0; token < tokens; ++token) {
    const to = ((at.index + token) * at.layers + at.layer) * perToken;
    for (let rank = 0; rank < perToken; ++rank) {
      const id = view.getUint16(offset + 2 * (token * perToken + rank), true);
      const code = view.getInt8(offset + 2 * count + token * perToken + rank);
      if (code !== NO_GUESS) {
        if (id >= at.experts) return `a guess of expert ${id}`;
        if (out.ids.subarray(to, to + rank).includes(id)) return `a guess of expert ${id} twice`;
        if (rank > 0 && code > out.codes[to + rank - 1]!) return 'guesses that do not stand best first';
      }
      out.ids[to + rank] = id;
      out.codes[to + rank] = code;
    }
  }
  return null;
}
