/** Which KV blocks belong to which sequence: the one owner of all of them. */
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
  readonly #isTaken: Uint8Array;
  /** No block below this one is free. */
  #lowest = 0;
  #used = 0;
  #limit: number;
  #touched = 0;

  /** @param contextLength positions of one sequence at most. */
  constructor(total: number, blockTokens: number, contextLength: number) {
    this.total = total;
    this.blockTokens = blockTokens;
    this.blocksPerSequence = Math.ceil(contextLength / blockTokens);
    this.#isTaken = new Uint8Array(total);
    this.#limit = total;
  }

  /** Blocks that may be in use; below `total` while memory is short. */
  get limit(): number {
    return this.#limit;
  }

  set limit(blocks: number) {
    assert(blocks >= 1 && blocks <= this.total, `a limit of ${blocks} KV blocks, there are ${this.total}`);
    this.#limit = blocks;
  }

  get free(): number {
    return Math.max(0, this.#limit - this.#used);
  }

  get used(): number {
    return this.#used;
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
    for (let i = 0; i < missing; ++i) {
      while (this.#isTaken[this.#lowest] === 1) ++this.#lowest;
      this.#isTaken[this.#lowest] = 1;
      table.blocks[table.count++] = this.#lowest;
      this.#touched = Math.max(this.#touched, this.#lowest + 1);
      ++this.#used;
    }
    return true;
  }

  /** Gives all blocks of `table` back. */
  release(table: BlockTable): void {
    while (table.count > 0) {
      const block = table.blocks[--table.count]!;
      this.#isTaken[block] = 0;
      this.#lowest = Math.min(this.#lowest, block);
      --this.#used;
    }
  }

  /** Touched blocks above the last one in use count as untouched from now on: [first, end) are to be given back. */
  forgetTail(): readonly [first: number, end: number] {
    const end = this.#touched;
    while (this.#touched > 0 && this.#isTaken[this.#touched - 1] === 0) --this.#touched;
    return [this.#touched, end];
  }
}
