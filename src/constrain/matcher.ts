/** The formats of one engine: its vocabulary as a trie, machines that are shared, and a matcher for each sequence. */
import { LRUCache } from 'lru-cache';
import { MoestroError } from '../errors.js';
import { Machine, type Place } from './machine.js';
import { Masks, type TokenMask } from './masks.js';
import type { FormatProgram, TokenBytes } from './program.js';
import { TokenTrie } from './token-trie.js';

/** Machines kept for formats that come again; some 6 MB each at most. Sequences under way keep theirs. */
const MACHINES_MAX = 4;

export class Formats {
  readonly #tokenBytes: TokenBytes;
  #masks: Masks | undefined;
  readonly #machines = new LRUCache<
    string,
    { readonly id: number; readonly machine: Machine; readonly forced: Forced }
  >({
    max: MACHINES_MAX,
  });
  #nextId = 0;

  constructor(tokenBytes: TokenBytes) {
    this.#tokenBytes = tokenBytes;
  }

  /** Made with the first request that has a format: most never do, and it takes memory. */
  get masks(): Masks {
    this.#masks ??= new Masks(new TokenTrie(this.#tokenBytes));
    return this.#masks;
  }

  /** A matcher at the beginning of a text. */
  open(program: FormatProgram): Matcher {
    let known = this.#machines.get(program.key);
    if (known === undefined) {
      const forced = new Map(program.forced.map(({ bytes, tokenIds }) => [bytes, tokenIds]));
      known = { id: this.#nextId++, machine: new Machine(program), forced };
      this.#machines.set(program.key, known);
    }
    return new Matcher(this.masks, known.id, known.machine, known.forced);
  }
}

type Forced = ReadonlyMap<string, readonly number[]>;

/** Where one sequence stands in its format. */
export class Matcher {
  readonly #masks: Masks;
  readonly #machineId: number;
  readonly #machine: Machine;
  readonly #forced: Forced;
  #place: Place;

  constructor(masks: Masks, machineId: number, machine: Machine, forced: Forced) {
    this.#masks = masks;
    this.#machineId = machineId;
    this.#machine = machine;
    this.#forced = forced;
    this.#place = machine.start;
  }

  /** The text so far is whole. */
  get mayEnd(): boolean {
    return this.#place.isEnd;
  }

  /** Nothing can follow. */
  get mustEnd(): boolean {
    return this.#place.frames.length === 0;
  }

  /**
   * Tokens that may follow, beside the end of the text.
   *
   * @throws {MoestroError} FORMAT_FAILED when the vocabulary has none and the text cannot end here.
   */
  mask(): TokenMask {
    const mask = this.#masks.maskOf(this.#machineId, this.#machine, this.#place);
    if (mask.kind === 'few' && mask.ids.length === 0 && !this.mayEnd) {
      throw new MoestroError('FORMAT_FAILED', 'Cannot go on: no token of the vocabulary fits the format here');
    }
    return mask;
  }

  /** Reads a token that the mask holds. */
  accept(tokenId: number): void {
    const { bytes, offsets } = this.#masks.trie.tokenBytes;
    for (let i = offsets[tokenId]!; i < offsets[tokenId + 1]!; ++i) {
      const next = this.#machine.step(this.#place, bytes[i]!);
      if (next === null) {
        throw new MoestroError('INTERNAL', `Token ${tokenId} was drawn although the format does not take it`);
      }
      this.#place = next;
    }
  }

  /** Tokens that are the only way on, as the tokenizer would split them; often none. Reads nothing. */
  forced(): readonly number[] {
    if (this.#forced.size === 0) return [];
    const text = forcedText(this.#machine, this.#place);
    // Texts were looked for rule by rule; here they may go on past the end of one.
    for (let length = text.length; length > 1; --length) {
      const tokenIds = this.#forced.get(text.slice(0, length));
      if (tokenIds !== undefined) return tokenIds;
    }
    return [];
  }
}

/** Forced texts are cut there: longer ones take the next step. */
const FORCED_LENGTH_MAX = 256;

/** The bytes that must follow, as characters U+0000 to U+00FF. */
export function forcedText(machine: Machine, from: Place): string {
  let text = '';
  let place: Place | null = from;
  for (let byte = machine.forcedByte(from); byte >= 0 && text.length < FORCED_LENGTH_MAX; ) {
    text += String.fromCharCode(byte);
    place = machine.step(place!, byte);
    byte = machine.forcedByte(place!);
  }
  return text;
}
