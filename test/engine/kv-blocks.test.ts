import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KvBlocks } from '../../src/engine/kv-blocks.js';

describe('KvBlocks', () => {
  it('gives a sequence the blocks its positions need, all or none', () => {
    const blocks = new KvBlocks(5, 16, 64);
    expect(blocks.blocksPerSequence).toBe(4);
    const [first, second] = [blocks.open(), blocks.open()];
    expect(blocks.grow(first, 17)).toBe(true);
    expect([first.count, blocks.used, blocks.missing(first, 32), blocks.missing(first, 33)]).toEqual([2, 2, 0, 1]);
    expect(blocks.grow(second, 64)).toBe(false);
    expect([second.count, blocks.free]).toEqual([0, 3]);
    blocks.release(first);
    expect(blocks.grow(second, 64)).toBe(true);
    expect(() => blocks.grow(second, 65)).toThrow(/no place for 65 positions/);
  });

  it('lets a kept block be in several tables, and takes it back when nobody uses it', () => {
    const blocks = new KvBlocks(3, 16, 64);
    const [first, second, third] = [blocks.open(), blocks.open(), blocks.open()];
    blocks.grow(first, 32);
    const [kept] = first.blocks;
    blocks.keep(kept!);
    blocks.share(second, kept!);
    blocks.release(first);
    expect([blocks.used, blocks.idle, blocks.free]).toEqual([1, 0, 2]);
    blocks.release(second);
    expect([blocks.used, blocks.idle, blocks.free, blocks.isIdle(kept!)]).toEqual([0, 1, 3, true]);
    expect(blocks.forgetTail()).toEqual([1, 2]);
    blocks.reclaim = () => blocks.drop(kept!);
    expect(blocks.grow(third, 48)).toBe(true);
    expect([blocks.used, blocks.idle, blocks.free]).toEqual([3, 0, 0]);
    expect(() => blocks.share(second, kept!)).toThrow(/not kept/);
  });

  it('keeps what some table has when it is not kept any more', () => {
    const blocks = new KvBlocks(2, 16, 32);
    const [first, second] = [blocks.open(), blocks.open()];
    blocks.grow(first, 16);
    blocks.keep(0);
    blocks.share(second, 0);
    blocks.drop(0);
    blocks.release(first);
    expect([blocks.used, blocks.free]).toEqual([1, 1]);
    blocks.grow(first, 16);
    expect(first.blocks[0]).toBe(1);
    blocks.release(second);
    expect([blocks.used, blocks.free]).toEqual([1, 1]);
  });

  it('never has a block in two tables whatever is taken and released', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 64 })), { maxLength: 60 }),
        (steps) => {
          const blocks = new KvBlocks(7, 16, 64);
          const tables = Array.from({ length: 4 }, () => blocks.open());
          for (const [which, positions] of steps) {
            const table = tables[which]!;
            if (positions === 0) blocks.release(table);
            else blocks.grow(table, positions);
            const held = tables.flatMap(({ blocks: list, count }) => Array.from(list.subarray(0, count)));
            expect(new Set(held).size).toBe(held.length);
            expect(held.length).toBe(blocks.used);
          }
        },
      ),
      { numRuns: 200, seed: 2 },
    );
  });
});
