import { describe, expect, it } from 'vitest';
import { planShed } from '../../src/experts/shed.js';
import { SlotPool } from '../../src/experts/slot-pool.js';
import { UseCounts } from '../../src/experts/use-counts.js';

/** Residency of two layers of three experts; a use each per `used`. */
function view(residentBits: number[], used: number[], floors = [0, 0]) {
  const uses = new UseCounts(2, 3, 8, new Float32Array(6));
  uses.advance(1);
  for (const [key, count] of used.entries()) for (let i = 0; i < count; ++i) uses.record(key, 0);
  return {
    layers: 2,
    experts: 3,
    bitSlots: 24,
    scaleSlots: 6,
    fullLevel: 4,
    freeBits: 0,
    freeScales: 0,
    residentBits: Uint8Array.from(residentBits),
    readingBits: new Uint8Array(6),
    layerExperts: Int32Array.of(
      residentBits.slice(0, 3).filter((bits) => bits > 0).length,
      residentBits.slice(3).filter((bits) => bits > 0).length,
    ),
    floors: Int32Array.from(floors),
    uses,
  };
}
const LEVELS = [2, 3, 4];
const pairs = ({ keys, bits }: { keys: number[]; bits: number[] }) => keys.map((key, i) => [key, bits[i]]);

describe('planShed()', () => {
  it.each<[string, number, number, number[], number[], number[][]]>([
    ['nothing when nothing is asked', 0, 0, [4, 4, 4, 4, 4, 4], [1, 1, 1, 1], []],
    [
      'the coldest expert whole where bits count alike',
      4,
      0,
      [4, 4, 4, 4, 4, 4],
      [1, 1, 1],
      [
        [1, 3],
        [1, 2],
        [1, 0],
      ],
    ],
    [
      'high planes of warm experts before a cold base',
      3,
      0,
      [4, 4, 4, 4, 4, 4],
      [0.5, 0.07, 0.02],
      [
        [1, 3],
        [2, 3],
        [1, 2],
      ],
    ],
    ['whole experts where scales are asked for', 0, 1, [2, 2, 4, 2, 2, 2], [1, 1, 1], [[1, 0]]],
  ])('drops %s', (_, bits, scales, resident, gains, expected) => {
    expect(pairs(planShed(bits, scales, view(resident, [9, 1, 2, 5, 6, 7]), LEVELS, gains, () => true))).toEqual(
      expected,
    );
  });

  it('keeps the floors of layers while others have something to give, and then not', () => {
    const cold = view([4, 0, 0, 4, 4, 4], [1, 0, 0, 5, 6, 7], [1, 1]);
    expect(pairs(planShed(4, 0, cold, LEVELS, [1, 1, 1], () => true)).at(-1)).toEqual([3, 2]);
    const all = planShed(16, 0, cold, LEVELS, [1, 1, 1], () => true);
    expect([all.freedBits, all.freedScales]).toEqual([16, 4]);
  });

  it('leaves experts that are in use alone, though too little comes free', () => {
    const shed = planShed(24, 6, view([4, 4, 4, 4, 4, 4], [1, 1, 1, 1, 1, 1]), LEVELS, [1, 1, 1], (key) => key !== 2);
    expect(shed.freedBits).toBe(20);
    expect(shed.keys).not.toContain(2);
  });
});

describe('SlotPool', () => {
  it('hands out the lowest slots, counts against the limit and empties what is beyond', () => {
    const pool = new SlotPool(8, 6);
    expect([1, 2, 3, 4, 5].map(() => pool.take())).toEqual([0, 1, 2, 3, 4]);
    pool.give(1);
    pool.give(2);
    pool.setLimit(3);
    expect([pool.free, pool.vacantFrom, pool.touched]).toEqual([0, 5, 5]);
    expect([pool.move(4), pool.move(3)]).toEqual([1, 2]);
    expect(pool.vacantFrom).toBe(3);
    pool.untouched(3);
    expect(pool.touched).toBe(3);
    expect(() => pool.take()).toThrow(/none is free/);
    expect(() => pool.setLimit(2)).toThrow(/3 slots in use/);
    expect(() => pool.untouched(2)).toThrow(/one is taken/);
  });
});
