import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createLayerPlan } from '../../src/experts/layer-plan.js';
import { planExperts } from '../../src/experts/plan.js';
import { planSettings } from '../../src/experts/plan-settings.js';
import { Residency } from '../../src/experts/residency.js';
import { victimOfGuess } from '../../src/experts/waves.js';

const LAYERS = 8;
const EXPERTS = 6;
const LEVEL = 4;

/** Slots for so many experts, of which these are resident, and what each is worth. */
function setUp(slots: number, resident: readonly number[], worth: (key: number) => number) {
  const residency = new Residency({
    layers: LAYERS,
    experts: EXPERTS,
    bitSlots: slots * LEVEL,
    scaleSlots: slots,
    fullLevel: LEVEL,
    topK: 1,
  });
  for (const key of resident) {
    residency.speculate(key, LEVEL);
    residency.landed(key, 0);
    residency.used(key);
  }
  for (let key = 0; key < LAYERS * EXPERTS; ++key) residency.reuse.worth[key] = worth(key);
  const settings = planSettings(residency, [LEVEL], 1);
  const plan = createLayerPlan(LAYERS, EXPERTS, 1, 1);
  const victim = (layer: number, ...expected: number[]) => {
    const isExpected = new Uint8Array(EXPERTS);
    for (const expert of expected) isExpected[expert] = 1;
    return victimOfGuess(layer, isExpected, residency, settings, plan.scratch);
  };
  return { residency, settings, plan, victim };
}

describe('victimOfGuess()', () => {
  it('victimOfGuess() takes whom a miss of that layer would take', () => {
    const keys = fc.uniqueArray(fc.nat(LAYERS * EXPERTS - 1), { minLength: 12, maxLength: 30 });
    const worths = fc.array(fc.integer({ min: -400, max: 0 }), {
      minLength: LAYERS * EXPERTS,
      maxLength: LAYERS * EXPERTS,
    });
    fc.assert(
      fc.property(keys, worths, fc.nat(LAYERS * EXPERTS - 1), (drawn, worth, missing) => {
        const layer = Math.floor(missing / EXPERTS);
        const resident = drawn.filter((key) => key !== missing);
        const { residency, settings, plan, victim } = setUp(resident.length, resident, (key) => worth[key]! / 100);
        const guessed = victim(layer, missing % EXPERTS);
        const routing = {
          layer,
          tokens: 1,
          topK: 1,
          ids: Uint16Array.of(missing % EXPERTS),
          weights: Float32Array.of(1),
          levels: Uint8Array.of(LEVEL),
          live: Uint8Array.of(1),
        };
        planExperts(routing, residency, settings, plan);
        expect(plan.evictCount).toBe(1);
        expect(guessed).toBe(plan.evictKeys[0]);
      }),
    );
  });

  it('victimOfGuess() leaves alone what its layer will probably use, however little it is worth', () => {
    const resident = [2 * EXPERTS, 2 * EXPERTS + 1, 3 * EXPERTS];
    const { victim } = setUp(3, resident, (key) => (key === 3 * EXPERTS ? -1 : -9));
    expect(victim(2)).toBe(2 * EXPERTS);
    expect(victim(2, 0)).toBe(2 * EXPERTS + 1);
    expect(victim(2, 0, 1)).toBe(3 * EXPERTS);
  });

  it('victimOfGuess() has nobody where all that is left is expected or being read', () => {
    const { residency, victim } = setUp(2, [2 * EXPERTS], () => -1);
    expect(victim(2, 0)).toBe(-1);
    residency.speculate(1 * EXPERTS, LEVEL);
    expect(victim(2, 0)).toBe(-1);
  });

  it('victimOfGuess() takes what an earlier guess got wrong before any other', () => {
    const { residency, victim } = setUp(3, [1 * EXPERTS, 2 * EXPERTS], (key) => (key === 1 * EXPERTS + 3 ? 0 : -9));
    residency.speculate(1 * EXPERTS + 3, LEVEL);
    residency.landed(1 * EXPERTS + 3, 0);
    expect(victim(2)).toBe(1 * EXPERTS + 3);
  });
});
