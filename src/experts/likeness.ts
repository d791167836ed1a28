/**
 * Do two streams want the same experts? Each stream keeps how often it lately used every expert, and the likeness of two is
 * the share of their uses that they have in common: the histogram intersection of both, 0 to 1.
 *
 * Streams whose experts are drawn evenly are alike by this measure, as all use all: one cache serves them as well as it would
 * serve each. Unlike are those that dwell on experts of their own.
 */

/** Tokens after which a use counts half: as long as a burst, so that likeness is of what a turn would ask for. */
const HALF_LIFE_TOKENS = 64;
/** Uses are faded once in so many tokens, all at a time. */
const FADE_TOKENS = 16;
const FADE = 2 ** (-FADE_TOKENS / HALF_LIFE_TOKENS);
/** Fewer tokens say nothing of a stream: it may still be like any other. */
const TOKENS_MIN = 16;

interface Stream {
  id: number;
  /** Step in which it was last seen. */
  step: number;
  tokens: number;
  /** Float32Array [keys]: decayed uses. */
  readonly uses: Float32Array;
}

export class Likeness {
  readonly #streams: Stream[] = [];
  readonly #keys: number;
  readonly #most: number;
  #step = 0;

  /** @param keys experts of all layers; @param most streams that are told apart: 4 bytes for each of their experts. */
  constructor(keys: number, most: number) {
    this.#keys = keys;
    this.#most = most;
  }

  /** A step begins. */
  beginStep(): void {
    ++this.#step;
  }

  /** Where uses of a stream are counted in this step, which takes it `tokens` further; null for one stream too many. */
  open(id: number, tokens: number): Float32Array | null {
    const stream = this.#find(id) ?? this.#take(id);
    if (stream === null) return null;
    stream.step = this.#step;
    const before = Math.floor(stream.tokens / FADE_TOKENS);
    stream.tokens += tokens;
    if (Math.floor(stream.tokens / FADE_TOKENS) > before) this.#fade(stream);
    return stream.uses;
  }

  /** 0 to 1; null while one of them is not known well enough. */
  of(first: number, second: number): number | null {
    const a = this.#find(first);
    const b = this.#find(second);
    if (a === undefined || b === undefined || a.tokens < TOKENS_MIN || b.tokens < TOKENS_MIN) return null;
    const sumA = sumOf(a.uses);
    const sumB = sumOf(b.uses);
    if (sumA === 0 || sumB === 0) return null;
    const scaleA = 1 / sumA;
    const scaleB = 1 / sumB;
    let common = 0;
    for (let key = 0; key < this.#keys; ++key) common += Math.min(a.uses[key]! * scaleA, b.uses[key]! * scaleB);
    return common;
  }

  #find(id: number): Stream | undefined {
    for (const stream of this.#streams) if (stream.id === id) return stream;
    return undefined;
  }

  /** A new one, or that which was seen longest ago. */
  #take(id: number): Stream | null {
    if (this.#streams.length < this.#most) {
      const made = { id, step: this.#step, tokens: 0, uses: new Float32Array(this.#keys) };
      this.#streams.push(made);
      return made;
    }
    let oldest = this.#streams[0]!;
    for (const stream of this.#streams) if (stream.step < oldest.step) oldest = stream;
    if (oldest.step === this.#step) return null;
    oldest.id = id;
    oldest.tokens = 0;
    oldest.uses.fill(0);
    return oldest;
  }

  #fade({ uses }: Stream): void {
    for (let key = 0; key < uses.length; ++key) uses[key] = uses[key]! * FADE;
  }
}

function sumOf(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; ++i) sum += values[i]!;
  return sum;
}
