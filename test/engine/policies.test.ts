import { describe, expect, it } from 'vitest';
import { Policies } from '../../src/engine/policies.js';
import { WEIGHT_BINS } from '../../src/engine/types.js';
import { WeightCounts } from '../../src/engine/weight-counts.js';
import { chooseLevels, type LevelPolicy, precisionModel } from '../../src/experts/precision.js';

const shape = { expertCount: 8, topK: 2, normTopK: true };
const model = precisionModel([2, 3, 4, 8], 4, {}, null, shape, 2);

const WEIGHTS = Float32Array.from([0.99, 0.5, 0.2, 0.1, 0.05, 0.01, 0.002, 0.0004]);
function levelsOf(policy: LevelPolicy): number[] {
  const out = new Uint8Array(WEIGHTS.length);
  chooseLevels(policy, 0, WEIGHTS, WEIGHTS.length, 0, out);
  return Array.from(out);
}
const meanOf = (policy: LevelPolicy) => levelsOf(policy).reduce((sum, level) => sum + level, 0) / WEIGHTS.length;

describe('Policies', () => {
  it('takes mode and bits of the request before those of the engine', () => {
    const exact = new Policies(model, 'exact', null);
    const routed = new Policies(model, 'routed', 2.5);
    const full = WEIGHTS.length * 4;
    expect(meanOf(exact.of())).toBe(full / WEIGHTS.length);
    expect(levelsOf(exact.of({ mode: 'routed', bits: 2.5 }))).toEqual(levelsOf(routed.of()));
    expect(levelsOf(routed.of({ mode: 'exact' }))).toEqual(levelsOf(exact.of()));
    expect(meanOf(routed.of({ bits: 3.5 }))).toBeGreaterThan(meanOf(routed.of()));
  });

  it('aims at three bits where nobody says, and below a low full level', () => {
    expect(levelsOf(new Policies(model, 'routed', null).of())).toEqual(levelsOf(new Policies(model, 'routed', 3).of()));
    const low = precisionModel([2, 3, 4, 8], 3, {}, null, shape, 2);
    expect(levelsOf(new Policies(low, 'routed', null).of())).toEqual(levelsOf(new Policies(low, 'routed', 2.5).of()));
  });

  it('gives one policy for one number of bits, also after many others', () => {
    const policies = new Policies(model, 'routed', null);
    const first = policies.of({ bits: 2.7 });
    expect(policies.of({ bits: 2.7 })).toBe(first);
    for (let i = 0; i < 100; ++i) policies.of({ bits: 3 + i / 100 });
    expect(policies.of({ bits: 2.7 })).toEqual(first);
  });

  it('takes a policy of the request as it is, when it fits the model', () => {
    const policies = new Policies(model, 'exact', null);
    const policy = { levels: [2, 4], thresholds: new Float32Array([0, Number.POSITIVE_INFINITY]) };
    expect(policies.of({ policy })).toBe(policy);
    const thresholds = new Float32Array(2);
    for (const levels of [[2, 8], [2, 3, 4], [], [4, 5]]) {
      expect(() => policies.of({ policy: { levels, thresholds } })).toThrow(/needed some of 2, 3, 4 and/);
    }
  });

  it.each([1.9, 8.1, Number.NaN])('refuses %d bits', (bits) => {
    expect(() => new Policies(model, 'routed', null).of({ bits })).toThrow(/needed a number from 2 to 8/);
  });
});

describe('WeightCounts', () => {
  it('counts weights of live tokens by quarter octaves', () => {
    const counts = new WeightCounts(2);
    counts.add({
      layer: 1,
      tokens: 3,
      topK: 2,
      ids: new Uint16Array(6),
      weights: Float32Array.from([1, 0.49, 0.9, 0.1, 0, Number.NaN]),
      levels: new Uint8Array(6),
      live: Uint8Array.from([1, 0, 1]),
    });
    const found = [...counts.counts.entries()].filter(([, count]) => count > 0);
    expect(found).toEqual([
      [WEIGHT_BINS, 1],
      [WEIGHT_BINS + 4, 1],
      [2 * WEIGHT_BINS - 1, 2],
    ]);
  });
});

describe('elastic policies', () => {
  const model = precisionModel([2, 3, 4, 8], 4, {}, null, { expertCount: 16, topK: 4, normTopK: true }, 2);

  it('are the floors of routed at as many bits, marked as such, and never level 2 throughout', () => {
    const policies = new Policies(model, 'elastic', null);
    const asked = policies.of({ mode: 'elastic', bits: 3 });
    expect(asked.isElastic).toBe(true);
    expect(asked.thresholds).toEqual(policies.of({ mode: 'routed', bits: 3 }).thresholds);
    expect(policies.of().thresholds).toEqual(policies.of({ mode: 'routed', bits: 2.5 }).thresholds);
    expect(policies.of({ bits: 2 }).thresholds.every(Number.isFinite)).toBe(true);
    expect(policies.of({ mode: 'exact' }).isElastic).toBeUndefined();
  });
});
