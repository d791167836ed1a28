import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  chooseLevels,
  fixedLevel,
  type LevelPolicy,
  nextLevel,
  type PrecisionModel,
  policyOfBits,
  policyOfPrice,
  precisionModel,
} from '../../src/experts/precision.js';

const shape = { expertCount: 64, topK: 8, normTopK: true };

function levelsOf(policy: LevelPolicy, layer: number, weights: readonly number[]): number[] {
  const out = new Uint8Array(weights.length * 2);
  const twice = Float32Array.from([...weights.map(() => 9), ...weights]);
  chooseLevels(policy, layer, twice, weights.length, 1, out);
  expect(Array.from(out.subarray(0, weights.length)), 'another row is left alone').toEqual(weights.map(() => 0));
  return Array.from(out.subarray(weights.length));
}

/** The rule as it is stated: the level of least loss plus price; what thresholds have to come to. */
function cheapest(model: PrecisionModel, layer: number, weight: number, price: number): number {
  const costs = model.levels.map(
    (level, i) => model.sensitivities[layer]! * weight ** 2 * model.errors[i]! + price * level,
  );
  return model.levels[costs.indexOf(Math.min(...costs))]!;
}

const models = fc.record({
  levels: fc.constantFrom<number[][]>([2], [2, 3], [2, 3, 4], [2, 3, 4, 8]),
  errors: fc.array(fc.double({ min: 1e-5, max: 1, noNaN: true }), { minLength: 4, maxLength: 4 }),
  sensitivities: fc.array(fc.double({ min: 1e-3, max: 1e3, noNaN: true }), { minLength: 1, maxLength: 4 }),
});

describe('policyOfPrice()', () => {
  it('finds the level of least loss plus price, whatever the errors of the levels', () => {
    fc.assert(
      fc.property(
        models,
        fc.double({ min: 1e-6, max: 10, noNaN: true }),
        fc.double({ min: 1e-4, max: 1, noNaN: true }),
        ({ levels, errors, sensitivities }, price, weight) => {
          const sorted = [...errors].sort((a, b) => b - a).slice(0, levels.length);
          const model = { levels, errors: sorted, sensitivities, importances: [1] };
          for (const layer of sensitivities.keys()) {
            const [level] = levelsOf(policyOfPrice(model, price), layer, [weight]);
            const cost = (bits: number) =>
              sensitivities[layer]! * weight ** 2 * sorted[levels.indexOf(bits)]! + price * bits;
            const best = cost(cheapest(model, layer, weight, price));
            // Thresholds are float32: at one, both sides cost the same but for rounding.
            expect(cost(level!)).toBeLessThanOrEqual(best * (1 + 1e-5));
          }
        },
      ),
    );
  });

  it('runs at the full level for nothing and at the lowest for any price', () => {
    const model = precisionModel([8, 2, 4, 3], 8, {}, null, shape, 1);
    expect(levelsOf(policyOfPrice(model, 0), 0, [0.9, 0.1, 0])).toEqual([8, 8, 8]);
    expect(levelsOf(policyOfPrice(model, Number.POSITIVE_INFINITY), 0, [0.9, 0.1, 0])).toEqual([2, 2, 2]);
  });

  it('goes to the full level for nothing also where errors do not fall', () => {
    const model = precisionModel([2, 3, 4], 4, { '2': 0, '3': 0, '4': 0 }, null, shape, 1);
    expect(levelsOf(policyOfPrice(model, 0), 0, [0.5])).toEqual([4]);
  });
});

describe('policyOfBits()', () => {
  const profile = { tokens: 1, sensitivities: [40, 1], importances: [0.001, 0.01, 0.02, 0.05, 0.1, 0.4, 2, 20] };

  it('comes to the bits asked for on the traffic it was calibrated for', () => {
    const spread = Array.from({ length: 1000 }, (_, i) => 10 ** (-4 + (5 * i) / 1000));
    const model: PrecisionModel = {
      ...precisionModel([2, 3, 4, 8], 8, {}, null, shape, 1),
      importances: spread,
    };
    for (const bits of [2, 2.25, 2.5, 3, 3.7, 4, 5, 7.9, 8]) {
      const levels = levelsOf(policyOfBits(model, bits), 0, spread.map(Math.sqrt));
      expect(levels.reduce((sum, level) => sum + level, 0) / levels.length).toBeCloseTo(bits, 1);
    }
  });

  it('never takes a bit away as more are asked for', () => {
    const model = precisionModel([2, 3, 4, 8], 8, {}, profile, shape, 2);
    const bits = fc.double({ min: 2, max: 8, noNaN: true });
    fc.assert(
      fc.property(
        bits,
        bits,
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.integer({ min: 0, max: 1 }),
        (a, b, w, l) => {
          const [less] = levelsOf(policyOfBits(model, Math.min(a, b)), l, [w]);
          const [more] = levelsOf(policyOfBits(model, Math.max(a, b)), l, [w]);
          expect(less).toBeLessThanOrEqual(more!);
        },
      ),
    );
  });

  it('gives sensitive layers and heavy experts the bits', () => {
    const policy = policyOfBits(precisionModel([2, 3, 4], 4, {}, profile, shape, 2), 3);
    const sensitive = levelsOf(policy, 0, [0.5, 0.3, 0.1, 0.01]);
    const other = levelsOf(policy, 1, [0.5, 0.3, 0.1, 0.01]);
    expect(sensitive).toEqual([...sensitive].sort((a, b) => b - a));
    for (const [rank, level] of sensitive.entries()) expect(level).toBeGreaterThanOrEqual(other[rank]!);
    expect(sensitive).not.toEqual(other);
  });

  it('spreads the levels of a model nobody calibrated', () => {
    for (const normTopK of [true, false]) {
      const policy = policyOfBits(precisionModel([2, 3, 4], 4, {}, null, { ...shape, normTopK }, 3), 3);
      const scale = normTopK ? 1 : 0.4;
      const levels = levelsOf(
        policy,
        2,
        [0.5, 0.25, 0.1, 0.05, 0.04, 0.03, 0.02, 0.01].map((w) => w * scale),
      );
      expect(levels[0]).toBe(4);
      expect(levels[7]).toBe(2);
    }
  });
});

describe('chooseLevels()', () => {
  it('gives a weight that is no number the lowest level', () => {
    const policy = policyOfBits(precisionModel([2, 3, 4], 4, {}, null, shape, 1), 3);
    expect(levelsOf(policy, 0, [Number.NaN, 1])).toEqual([2, 4]);
  });

  it('takes one level for all when there is one', () => {
    expect(levelsOf(fixedLevel(4), 7, [0.7, 0.2, Number.NaN])).toEqual([4, 4, 4]);
  });
});

describe('nextLevel()', () => {
  it.each([
    { levels: [2, 3, 4, 8], full: 8, next: 4 },
    { levels: [8, 4, 2, 3], full: 4, next: 3 },
    { levels: [2, 3, 4], full: 2, next: 2 },
  ])('is $next below $full', ({ levels, full, next }) => {
    expect(nextLevel(levels, full)).toBe(next);
  });
});
