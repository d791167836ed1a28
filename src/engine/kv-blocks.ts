/**
 * Which KV blocks belong to whom: the one owner of all of them. A block may be in the tables of several sequences and be
 * kept for later ones at the same time (prefix/prefix-cache.ts); nobody writes to it then. One that is only kept is *idle*: it
 * counts as free, and is taken back when a sequence needs it.
 */
import assert from 'node:assert/strict';

/** Blocks of one sequence, in order of position. Made by `KvBlocks.open`, changed by `KvBlocks` only. */
export interface BlockTable {
  /** Int32Array [blocksPerSequence]; the first `count` are in use. */
  readonly blocks: Int32Array;
  count: number;
}

export class KvBlocks {
  readonly total: number;
  readonly blockTokens: number;
  readonly blocksPerSequence: number;
  /** Stops keeping some idle block; called while there are some and a sequence needs their memory. */
  reclaim: () => void = () => assert.fail('blocks are kept and nobody takes them back');
  /** By block: tables it is in, and whether it is kept. */
  readonly #users: Uint16Array;
  readonly #isKept: Uint8Array;
  /** No block below this one is vacant. */
  #lowest = 0;
  #used = 0;
  #idle = 0;
  #limit: number;
  #touched = 0;

  /** @param contextLength positions of one sequence at most. */
  constructor(total: number, blockTokens: number, contextLength: number) {
    this.total = total;
    this.blockTokens = blockTokens;
    this.blocksPerSequence = Math.ceil(contextLength / blockTokens);
    this.#users = new Uint16Array(total);
    this.#isKept = new Uint8Array(total);
    this.#limit = total;
  }

  /** Blocks that may hold something; below `total` while memory is short. */
  get limit(): number {
    return this.#limit;
  }

  set limit(blocks: number) {
    assert(blocks >= 1 && blocks <= this.total, `a limit of ${blocks} KV blocks, there are ${this.total}`);
    this.#limit = blocks;
  }

  /** Blocks that sequences can still have, idle ones among them. */
  get free(): number {
    return Math.max(0, this.#limit - this.#used);
  }

  /** Blocks in tables, each counted once. */
  get used(): number {
    return this.#used;
  }

  /** Blocks in no table that are kept. */
  get idle(): number {
    return this.#idle;
  }

  /** Blocks from here on hold no memory. */
  get touched(): number {
    return this.#touched;
  }

  open(): BlockTable {
    return { blocks: new Int32Array(this.blocksPerSequence), count: 0 };
  }

  /** Blocks that `table` lacks to hold `positions`. */
  missing(table: BlockTable, positions: number): number {
    return Math.max(0, Math.ceil(positions / this.blockTokens) - table.count);
  }

  /** Takes the blocks that `positions` need, lowest first; false, and nothing changed, when there are too few. */
  grow(table: BlockTable, positions: number): boolean {
    const missing = this.missing(table, positions);
    if (missing > this.free) return false;
    assert(table.count + missing <= this.blocksPerSequence, `a sequence has no place for ${positions} positions`);
    while (this.#used + this.#idle + missing > this.#limit) this.reclaim();
    for (let i = 0; i < missing; ++i) {
      while (!this.#isVacant(this.#lowest)) ++this.#lowest;
      this.#users[this.#lowest] = 1;
      table.blocks[table.count++] = this.#lowest;
      this.#touched = Math.max(this.#touched, this.#lowest + 1);
      ++this.#used;
    }
    return true;
  }

  /** Puts a block that is kept into `table` too, after those that are there. */
  share(table: BlockTable, block: number): void {
    assert(this.#isKept[block] === 1, `block ${block} is not kept`);
    if (this.#users[block] === 0) {
      --this.#idle;
      ++this.#used;
    }
    this.#users[block] = this.#users[block]! + 1;
    table.blocks[table.count++] = block;
  }

  /** Takes the blocks after the first `count` back out of `table`. */
  release(table: BlockTable, count = 0): void {
    while (table.count > count) {
      const block = table.blocks[--table.count]!;
      this.#users[block] = this.#users[block]! - 1;
      if (this.#users[block]! > 0) continue;
      --this.#used;
      if (this.#isKept[block] === 1) ++this.#idle;
      else this.#lowest = Math.min(this.#lowest, block);
    }
  }

  /** From now on nobody writes to this block of some table, and it outlives the table. */
  keep(block: number): void {
    assert(this.#users[block]! > 0 && this.#isKept[block] === 0, `block ${block} cannot be kept`);
    this.#isKept[block] = 1;
  }

  /** The opposite of `keep`. */
  drop(block: number): void {
    assert(this.#isKept[block] === 1, `block ${block} is not kept`);
    this.#isKept[block] = 0;
    if (this.#users[block]! > 0) return;
    --this.#idle;
    this.#lowest = Math.min(this.#lowest, block);
  }

  isIdle(block: number): boolean {
    return this.#isKept[block] === 1 && this.#users[block] === 0;
  }

  /** Touched blocks above the last one that holds something count as untouched from now on: [first, end) are to be given back. */
  forgetTail(): readonly [first: number, end: number] {
    const end = this.#touched;
    while (this.#touched > 0 && this.#isVacant(this.#touched - 1)) --this.#touched;
    return [this.#touched, end];
  }

  #isVacant(block: number): boolean {
    return this.#users[block] === 0 && this.#isKept[block] === 0;
  }
}
