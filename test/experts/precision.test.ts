import { describe, expect, it } from 'vitest';
import { chooseLevels, levelLadder } from '../../src/experts/precision.js';

describe('levelLadder()', () => {
  it.each([
    { levels: [2, 3, 4, 8], full: 8, ladder: [8, 4, 3] },
    { levels: [2, 3, 4, 8], full: 4, ladder: [4, 3, 2] },
    { levels: [2, 3, 4], full: 3, ladder: [3, 2, 2] },
    { levels: [4, 2, 3], full: 2, ladder: [2, 2, 2] },
  ])('goes down from $full and never below two bits', ({ levels, full, ladder }) => {
    expect(levelLadder(levels, full)).toEqual(ladder);
  });
});

describe('chooseLevels()', () => {
  const choose = (weights: number[], isExact = false): number[] => {
    const out = new Uint8Array(weights.length * 2);
    chooseLevels(isExact, [4, 3, 2], Float32Array.from([...weights.map(() => 9), ...weights]), weights.length, 1, out);
    expect(Array.from(out.subarray(0, weights.length))).toEqual(weights.map(() => 0));
    return Array.from(out.subarray(weights.length));
  };

  it('takes the full level for all ranks when exact', () => {
    expect(choose([0.7, 0.2, 0.1], true)).toEqual([4, 4, 4]);
  });

  it.each([
    { weights: [0.272, 0.2, 0.164, 0.139, 0.12, 0.105], levels: [4, 4, 4, 3, 3, 2] },
    { weights: [0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125], levels: [4, 4, 4, 4, 3, 3, 3, 2] },
    { weights: [0.95, 0.03, 0.02], levels: [4, 2, 2] },
    { weights: [0.27, 0.02, 0.01], levels: [4, 2, 2] },
    { weights: [1], levels: [4] },
    { weights: [0, 0], levels: [4, 2] },
  ])('goes by the share of the mass before each rank: $weights', ({ weights, levels }) => {
    expect(choose(weights)).toEqual(levels);
  });
});
