/**
 * How many tokens of prompts may share a step with answers under way, so that nobody who reads along notices?
 *
 * Where all experts are in memory a step takes as long as it has tokens, so a prompt can be cut as one likes: its share is what
 * keeps the step near SLOWDOWN_MAX times one without it. Where experts are read, each cut costs another sweep of them all, and
 * a prompt takes all the step has.
 */

/** Times a step of decoding alone: below five, at which text is seen to stutter, and three quarters of the time for prompts. */
const SLOWDOWN_MAX = 4;
/** Fewer tokens cost nearly as much: an expert's weights are read for one token or for sixteen. */
const TOKENS_MIN = 16;
const BLEND = 0.2;

/**
 * @param decodeMs of a step of decoding alone; @param tokenMs that a token of a prompt adds.
 * @returns tokens of prompts, from TOKENS_MIN to `most`; `most` while nothing is known.
 */
export function prefillTokens(decodeMs: number | null, tokenMs: number | null, most: number): number {
  if (decodeMs === null || tokenMs === null || !(tokenMs > 0)) return most;
  const tokens = Math.floor(((SLOWDOWN_MAX - 1) * decodeMs) / tokenMs);
  return Math.max(Math.min(TOKENS_MIN, most), Math.min(most, tokens));
}

/** Remembers what steps took. */
export class PrefillShare {
  #decodeMs: number | null = null;
  #tokenMs: number | null = null;

  /** @param decoded and @param prefilled tokens of the step. */
  stepped(decoded: number, prefilled: number, stepMs: number): void {
    if (prefilled === 0) {
      this.#decodeMs = blend(this.#decodeMs, stepMs);
    } else if (prefilled >= TOKENS_MIN) {
      const own = decoded === 0 ? 0 : (this.#decodeMs ?? 0);
      this.#tokenMs = blend(this.#tokenMs, Math.max(0, stepMs - own) / prefilled);
    }
  }

  /** Tokens of the next step at most, of `most`, when `decoding` answers are under way and everything is in memory. */
  tokens(decoding: number, most: number): number {
    if (decoding === 0) return most;
    return Math.min(most, decoding + prefillTokens(this.#decodeMs, this.#tokenMs, most));
  }
}

const blend = (before: number | null, value: number): number =>
  before === null ? value : before + BLEND * (value - before);
