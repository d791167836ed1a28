/** What crosses to the engine thread: a compiled format as flat arrays of an automaton over bytes, and the vocabulary. */

/** What a state does. */
export const STATE = {
  /** Reads one byte of set `a`, then `b`. */
  byte: 0,
  /** Runs rule `a`, then `b`. */
  call: 1,
  /** The rule ends here. */
  accept: 2,
  /** Goes on in any of `fork[a .. b)` without reading. */
  fork: 3,
  /** The head of counted repetition `a`: into its body or past it. */
  loop: 4,
  /** One more round of counted repetition `a` is done: back to its head, `b`. */
  round: 5,
} as const;

export interface FormatProgram {
  /** The same for the same format; names it in caches. */
  readonly key: string;
  /** By state: Uint8Array, Int32Array, Int32Array. */
  readonly kinds: Uint8Array;
  readonly a: Int32Array;
  readonly b: Int32Array;
  /** Int32Array of states. */
  readonly forks: Int32Array;
  /** By counted repetition: first state of the body, state after it, rounds at least and at most (-1: any number). */
  readonly loopBodies: Int32Array;
  readonly loopExits: Int32Array;
  readonly loopMin: Int32Array;
  readonly loopMax: Int32Array;
  /** By state: the counted repetition it stands in, or -1. */
  readonly loopOf: Int32Array;
  /** By rule: the first state, and its place in an order in which no rule stands before one that begins with it. */
  readonly starts: Int32Array;
  readonly order: Int32Array;
  /** Class of each byte, Uint8Array [256]: bytes of one class are in the same sets. */
  readonly classes: Uint8Array;
  readonly classCount: number;
  /** Whether set s holds class c, Uint8Array [sets, classCount]. */
  readonly sets: Uint8Array;
  /**
   * Texts that can be the only way on, as the model's tokenizer splits them; the engine writes them without sampling.
   * Filled by whoever has the tokenizer.
   */
  readonly forced: readonly ForcedText[];
}

export interface ForcedText {
  /** Bytes as characters U+0000 to U+00FF. */
  readonly bytes: string;
  readonly tokenIds: readonly number[];
}

/** Token i is bytes[offsets[i] .. offsets[i + 1]); empty ones (special tokens) are never part of a format. */
export interface TokenBytes {
  readonly bytes: Uint8Array;
  /** Uint32Array [tokens + 1]. */
  readonly offsets: Uint32Array;
}
