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
  readonly #free: Int32Array;
  #freeCount: number;

  /** @param contextLength positions of one sequence at most. */
  constructor(total: number, blockTokens: number, contextLength: number) {
    this.total = total;
    this.blockTokens = blockTokens;
    this.blocksPerSequence = Math.ceil(contextLength / blockTokens);
    this.#free = Int32Array.from({ length: total }, (_, i) => total - 1 - i);
    this.#freeCount = total;
  }

  get free(): number {
    return this.#freeCount;
  }

  get used(): number {
    return this.total - this.#freeCount;
  }

  open(): BlockTable {
    return { blocks: new Int32Array(this.blocksPerSequence), count: 0 };
  }

  /** Blocks that `table` lacks to hold `positions`. */
  missing(table: BlockTable, positions: number): number {
    return Math.max(0, Math.ceil(positions / this.blockTokens) - table.count);
  }

  /** Takes the blocks that `positions` need; false, and nothing changed, when there are too few. */
  grow(table: BlockTable, positions: number): boolean {
    const missing = this.missing(table, positions);
    if (missing > this.#freeCount) return false;
    assert(table.count + missing <= this.blocksPerSequence, `a sequence has no place for ${positions} positions`);
    for (let i = 0; i < missing; ++i) table.blocks[table.count++] = this.#free[--this.#freeCount]!;
    return true;
  }

  /** Gives all blocks of `table` back. */
  release(table: BlockTable): void {
    while (table.count > 0) this.#free[this.#freeCount++] = table.blocks[--table.count]!;
  }
}
