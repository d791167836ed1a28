import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addElastic, createElasticScratch, raiseElastic } from '../../src/experts/elastic.js';
import type { Routing } from '../../src/experts/plan.js';
import { chooseLevels, type PrecisionModel, policyOfPrice } from '../../src/experts/precision.js';

const LEVELS = [2, 3, 4];
const model: PrecisionModel = {
  levels: LEVELS,
  errors: [0.1, 0.02, 0.005],
  sensitivities: [1, 3],
  importances: [1],
};
const FLOOR_PRICE = 0.002;
const policy = { ...policyOfPrice(model, FLOOR_PRICE), isElastic: true };

/** Tokens of one layer, topK experts each, all of one elastic policy. */
function levelsOf(
  layer: number,
  tokens: readonly (readonly (readonly [expert: number, weight: number])[])[],
  resident: readonly number[],
  price: number,
): number[][] {
  const topK = tokens[0]!.length;
  const routing: Routing = {
    layer,
    tokens: tokens.length,
    topK,
    ids: Uint16Array.from(tokens.flat().map(([expert]) => expert)),
    weights: Float32Array.from(tokens.flat().map(([, weight]) => weight)),
    levels: new Uint8Array(tokens.length * topK),
    live: new Uint8Array(tokens.length).fill(1),
  };
  const held = {
    residentBits: Uint8Array.from([...resident, ...resident]),
    readingBits: new Uint8Array(2 * resident.length),
  };
  const scratch = createElasticScratch(resident.length);
  for (const token of tokens.keys()) addElastic(policy, routing, token, scratch);
  for (const token of tokens.keys()) {
    raiseElastic(policy, price, routing, token, held, layer * resident.length, scratch);
  }
  return tokens.map((_, token) => [...routing.levels.subarray(token * topK, (token + 1) * topK)]);
}

describe('raiseElastic()', () => {
  const tokens = fc.array(
    fc.uniqueArray(fc.tuple(fc.integer({ min: 0, max: 7 }), fc.double({ min: 0.01, max: 0.9, noNaN: true })), {
      minLength: 2,
      maxLength: 2,
      selector: ([expert]) => expert,
    }),
    { minLength: 1, maxLength: 3 },
  );
  const resident = fc.array(fc.constantFrom(0, 2, 3, 4), { minLength: 8, maxLength: 8 });

  it('takes the level of least loss plus price over all tokens of an expert, never below a floor or what is held', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 1 }),
        tokens,
        resident,
        fc.double({ min: 1e-3, max: 1, noNaN: true }),
        (layer, batch, bits, price) => {
          const found = levelsOf(layer, batch, bits, price);
          for (const [token, pairs] of batch.entries()) {
            for (const [rank, [expert]] of pairs.entries()) {
              const weights = batch
                .flat()
                .filter(([other]) => other === expert)
                .map(([, weight]) => weight);
              const squares = weights.reduce((sum, weight) => sum + weight * weight, 0);
              const floors = new Uint8Array(weights.length);
              for (const row of weights.keys()) chooseLevels(policy, layer, Float32Array.from(weights), 1, row, floors);
              const least = Math.max(...floors, bits[expert]!);
              const cost = (level: number): number =>
                model.sensitivities[layer]! * squares * model.errors[LEVELS.indexOf(level)]! +
                price * FLOOR_PRICE * Math.max(0, level - bits[expert]!);
              const best = Math.min(...LEVELS.filter((level) => level >= least).map(cost));
              const level = found[token]![rank]!;
              expect(level).toBeGreaterThanOrEqual(least);
              expect(cost(level)).toBeLessThanOrEqual(best * (1 + 1e-5));
            }
          }
        },
      ),
    );
  });

  it('runs at the full level throughout when bits cost nothing, and at floors when none is resident at price 1', () => {
    const pairs = [
      [
        [0, 0.6],
        [1, 0.05],
      ],
    ] as const;
    const none = [0, 0, 0, 0, 0, 0, 0, 0];
    expect(levelsOf(0, pairs, none, 0)).toEqual([[4, 4]]);
    const floors = new Uint8Array(2);
    chooseLevels(policy, 0, Float32Array.of(0.6, 0.05), 2, 0, floors);
    expect(levelsOf(0, pairs, none, 1)).toEqual([[...floors]]);
    expect(floors[0]).toBeGreaterThan(floors[1]!);
  });

  it('gives a token in a hurry the planes that are resident', () => {
    expect(
      levelsOf(
        0,
        [
          [
            [0, 0.05],
            [1, 0.05],
          ],
        ],
        [4, 2, 0, 0, 0, 0, 0, 0],
        1,
      ),
    ).toEqual([[4, 2]]);
  });
});
