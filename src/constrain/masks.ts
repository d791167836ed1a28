/**
 * Which tokens may follow? What a set of states takes of the vocabulary by itself is found once and shared by all places
 * that hold the set; only tokens that run past the end of a rule depend on what called it, and those are walked from where
 * they leave it (context-independent and dependent tokens, XGrammar, arXiv:2411.15100).
 */
import { LRUCache } from 'lru-cache';
import type { Group, Machine, Place } from './machine.js';
import type { TokenTrie } from './token-trie.js';

/** Tokens that may follow: as a list in ascending order where they are few, else as bits. */
export type TokenMask =
  | { readonly kind: 'few'; readonly ids: Int32Array }
  | { readonly kind: 'many'; readonly bits: Uint32Array };

/** What a set of states takes by itself. */
interface Inside {
  readonly bits: Uint32Array;
  /** Nodes of the trie at which the rule is over and tokens go on. */
  readonly exits: Int32Array;
}

/** A list costs 32 times as much a token as bits do. */
const FEW_SHARE = 64;
/** Bytes of masks kept for each token of the vocabulary: 512 masks, 10 MB at 152,000 tokens. */
export const MASK_BYTES_PER_TOKEN = 64;
const MASK_BYTES_MIN = 1 << 20;

export class Masks {
  readonly trie: TokenTrie;
  /** Masks that had to be worked out, and bytes of what is kept. */
  made = 0;
  readonly #words: number;
  readonly #insides: LRUCache<string, Inside>;
  readonly #masks: LRUCache<string, TokenMask>;
  readonly #short = new Map<number, Uint32Array>();
  /** Places of the beginning that is walked, by depth. */
  readonly #path: Place[];

  constructor(trie: TokenTrie) {
    this.trie = trie;
    this.#words = (trie.vocabSize + 31) >>> 5;
    const half = Math.max(MASK_BYTES_MIN, trie.vocabSize * MASK_BYTES_PER_TOKEN) / 2;
    this.#insides = new LRUCache({
      maxSize: half,
      sizeCalculation: ({ bits, exits }) => bits.byteLength + exits.byteLength + 64,
    });
    this.#masks = new LRUCache({
      maxSize: half,
      sizeCalculation: (mask) => (mask.kind === 'few' ? mask.ids.byteLength : mask.bits.byteLength) + 64,
    });
    this.#path = new Array<Place>(trie.longest + 1);
  }

  get bytes(): number {
    return this.#insides.calculatedSize + this.#masks.calculatedSize;
  }

  /** @param machineId tells the places of different machines apart. */
  maskOf(machineId: number, machine: Machine, place: Place): TokenMask {
    const key = `${machineId}/${place.id}`;
    const known = this.#masks.get(key);
    if (known !== undefined) return known;
    this.made++;
    const bits = new Uint32Array(this.#words);
    for (const { set, returns } of place.frames) {
      for (const group of machine.groups(set, this.trie.longest)) {
        const inside = this.#insideOf(machine, group);
        for (let i = 0; i < bits.length; ++i) bits[i]! |= inside.bits[i]!;
        if (returns.frames.length === 0 || inside.exits.length === 0) continue;
        const after = machine.placeAfter(returns);
        if (after.frames.length === 0) continue;
        for (const node of inside.exits) {
          this.#path[this.trie.depth[node]!] = after;
          this.#walk(machine, node + 1, this.trie.after[node]!, 0, bits, null);
        }
      }
    }
    const mask = this.#compact(bits);
    this.#masks.set(key, mask);
    return mask;
  }

  #insideOf(machine: Machine, group: Group): Inside {
    const key = `${machine.program.key}/${group.members.join()}`;
    const known = this.#insides.get(key);
    if (known !== undefined) return known;
    const bits = new Uint32Array(this.#words);
    const exits: number[] = [];
    const { free, like } = group;
    if (like !== null && group.within !== null) {
      const inside = this.#between(machine, group, like, group.within);
      this.#insides.set(key, inside);
      return inside;
    }
    if (like !== null) {
      // Short tokens cannot exhaust the count: they are those of a count that is far away.
      const base = this.#insideOf(machine, alone(like));
      const short = this.#shortTokens(free);
      for (let i = 0; i < bits.length; ++i) bits[i] = base.bits[i]! & short[i]!;
      for (const node of base.exits) if (this.trie.depth[node]! < free) exits.push(node);
    }
    this.#path[0] = machine.alone(group.members);
    this.#walk(machine, 0, this.trie.byte.length, free, bits, exits);
    const inside = { bits, exits: Int32Array.from(exits) };
    this.#insides.set(key, inside);
    return inside;
  }

  /** Tokens of `like`, and those of `within` that can be read one by one: few, since they end the repetition. */
  #between(machine: Machine, { members, free }: Group, like: number, within: number): Inside {
    const least = this.#insideOf(machine, alone(like));
    const most = this.#insideOf(machine, alone(within));
    const start = machine.alone(members);
    const { bytes, offsets } = this.trie.tokenBytes;
    const read = (from: number, length: number): Place | null => {
      let place: Place | null = start;
      for (let i = from; i < from + length && place !== null; ++i) place = machine.step(place, bytes[i]!);
      return place;
    };
    const bits = least.bits.slice();
    for (let i = 0; i < bits.length; ++i) {
      for (let word = most.bits[i]! & ~bits[i]!; word !== 0; word &= word - 1) {
        const id = (i << 5) + 31 - Math.clz32(word & -word);
        const length = offsets[id + 1]! - offsets[id]!;
        if (length > free && read(offsets[id]!, length) !== null) bits[i]! |= 1 << (id & 31);
      }
    }
    const exits = most.exits.filter((node) => {
      // The bytes of a node are the beginning of any token below it.
      let below = node;
      while (this.trie.token[below]! < 0) ++below;
      return read(offsets[this.trie.token[below]!]!, this.trie.depth[node]!)?.isEnd ?? false;
    });
    return { bits, exits };
  }

  /**
   * Sets the bits of tokens longer than `free` bytes between two nodes that the machine takes from where `#path` stands;
   * `exits` gathers nodes of that depth at which the end was reached.
   */
  #walk(machine: Machine, first: number, end: number, free: number, bits: Uint32Array, exits: number[] | null): void {
    const { byte, depth, after, token, deepest, sameAs } = this.trie;
    const { classes } = machine.program;
    const path = this.#path;
    let node = first;
    while (node < end) {
      if (deepest[node]! <= free) {
        node = after[node]!;
        continue;
      }
      const at = depth[node]!;
      const before = path[at - 1]!;
      const byteClass = classes[byte[node]!]!;
      let place = before.next[byteClass];
      if (place === undefined) place = machine.stepClass(before, byteClass);
      if (place === null) {
        node = after[node]!;
        continue;
      }
      if (at > free) {
        for (let id = token[node]!; id >= 0; id = sameAs[id]!) bits[id >>> 5]! |= 1 << (id & 31);
      }
      if (exits !== null && place.isEnd && at >= free && after[node]! > node + 1) exits.push(node);
      path[at] = place;
      node = place.frames.length === 0 ? after[node]! : node + 1;
    }
  }

  /** Tokens of at most `length` bytes. */
  #shortTokens(length: number): Uint32Array {
    const known = this.#short.get(length);
    if (known !== undefined) return known;
    const { offsets } = this.trie.tokenBytes;
    const bits = new Uint32Array(this.#words);
    for (let id = 0; id < this.trie.vocabSize; ++id) {
      if (offsets[id + 1]! - offsets[id]! <= length) bits[id >>> 5]! |= 1 << (id & 31);
    }
    this.#short.set(length, bits);
    return bits;
  }

  #compact(bits: Uint32Array): TokenMask {
    let count = 0;
    for (let i = 0; i < bits.length; ++i) count += bitCount(bits[i]!);
    if (count * FEW_SHARE > this.trie.vocabSize) return { kind: 'many', bits };
    const ids = new Int32Array(count);
    let at = 0;
    for (let i = 0; i < bits.length; ++i) {
      for (let word = bits[i]!; word !== 0; word &= word - 1) ids[at++] = (i << 5) + 31 - Math.clz32(word & -word);
    }
    return { kind: 'few', ids };
  }
}

const alone = (member: number): Group => ({ members: [member], like: null, within: null, free: 0 });

function bitCount(word: number): number {
  let left = word - ((word >>> 1) & 0x55555555);
  left = (left & 0x33333333) + ((left >>> 2) & 0x33333333);
  return (((left + (left >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}
