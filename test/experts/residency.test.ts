import { describe, expect, it } from 'vitest';
import { edgeMoe } from '../../src/experts/eviction/edge-moe.js';
import { expectedUse } from '../../src/experts/eviction/expected-use.js';
import { hobbit } from '../../src/experts/eviction/hobbit.js';
import { lfu } from '../../src/experts/eviction/lfu.js';
import { lfuDecay } from '../../src/experts/eviction/lfu-decay.js';
import { lfuDecayLayer } from '../../src/experts/eviction/lfu-decay-layer.js';
import { lru } from '../../src/experts/eviction/lru.js';
import { createLayerPlan } from '../../src/experts/layer-plan.js';
import { planExperts } from '../../src/experts/plan.js';
import { planSettings } from '../../src/experts/plan-settings.js';
import { expertCapacity, layerFloors, Residency } from '../../src/experts/residency.js';
import { UseCounts } from '../../src/experts/use-counts.js';

describe('layerFloors()', () => {
  it.each([
    { layers: 4, experts: 16, capacity: 32, floors: [6, 4, 4, 4] },
    { layers: 4, experts: 16, capacity: 8, floors: [2, 1, 1, 1] },
    { layers: 4, experts: 16, capacity: 7, floors: [0, 0, 0, 0] },
    { layers: 4, experts: 3, capacity: 40, floors: [3, 3, 3, 3] },
  ])(
    'promises half of an equal share: $capacity experts over $layers layers',
    ({ layers, experts, capacity, floors }) => {
      expect(Array.from(layerFloors(layers, experts, capacity))).toEqual(floors);
    },
  );
});

describe('expertCapacity()', () => {
  it('counts whole experts at the full level, by whichever slots are fewer', () => {
    expect(expertCapacity({ bitSlots: 11, scaleSlots: 9, fullLevel: 4 })).toBe(2);
    expect(expertCapacity({ bitSlots: 40, scaleSlots: 3, fullLevel: 4 })).toBe(3);
  });
});

describe('Residency', () => {
  it('keeps what was read on a guess on probation until it is used, and frees it after an error', () => {
    const residency = new Residency({ layers: 1, experts: 4, bitSlots: 8, scaleSlots: 2, fullLevel: 4 });
    residency.speculate(1, 4);
    residency.speculate(2, 4);
    expect([residency.freeBits, residency.freeScales, residency.readingCount]).toEqual([0, 0, 2]);
    residency.landed(1, 0);
    residency.landed(2, 125);
    residency.checkInvariants();
    expect(Array.from(residency.onProbation)).toEqual([0, 1, 0, 0]);
    expect(residency.freeBits).toBe(4);
    residency.used(1);
    residency.makeRoom(1);
    residency.checkInvariants();
    expect([residency.freeBits, residency.probationEvictions]).toEqual([8, 0]);
  });

  function stepOf(ids: number[], level: number) {
    const residency = new Residency({ layers: 1, experts: 4, bitSlots: 8, scaleSlots: 4, fullLevel: 4 });
    const settings = planSettings(residency, [2, 3, 4], ids.length);
    const plan = createLayerPlan(1, 4, 1, ids.length);
    planExperts(
      {
        layer: 0,
        tokens: 1,
        topK: ids.length,
        ids: Uint16Array.from(ids),
        weights: new Float32Array(ids.length).fill(1),
        levels: new Uint8Array(ids.length).fill(level),
        live: Uint8Array.of(1),
      },
      residency,
      settings,
      plan,
    );
    return { residency, plan };
  }

  it('is reading until the read lands and absent again when it fails', () => {
    const { residency, plan } = stepOf([0, 1], 3);
    residency.apply(plan, 0);
    expect([residency.readingBits[0], residency.residentBits[0], residency.readingCount]).toEqual([3, 0, 2]);
    residency.landed(0, 0);
    residency.landed(1, 5);
    expect([residency.residentBits[0], residency.residentBits[1]]).toEqual([3, 0]);
    expect([residency.freeBits, residency.freeScales, residency.usedBits]).toEqual([5, 3, 3]);
    residency.checkInvariants();
  });

  it('refuses a completion nobody waits for and an eviction of an expert in use', () => {
    const { residency, plan } = stepOf([0, 1], 4);
    expect(() => residency.landed(2, 0)).toThrow(/no read on its way/);
    residency.apply(plan, 0);
    residency.landed(0, 0);
    plan.evictCount = 1;
    plan.evictKeys[0] = 0;
    plan.evictBits[0] = 0;
    plan.waveEvicts[0] = 0;
    plan.waveEvicts[1] = 1;
    expect(() => residency.apply(plan, 0)).toThrow(/in use and cannot be evicted/);
  });
});

describe('UseCounts', () => {
  it('halves a use every half-life, and across the scaling of all counts', () => {
    const uses = new UseCounts(1, 2, 8, new Float32Array(2));
    uses.advance(1);
    uses.record(0, 0);
    uses.record(1, 8);
    expect(uses.decayedUses(0)).toBe(1);
    expect(uses.decayedUses(1)).toBe(0.5);
    uses.advance(8);
    expect(uses.decayedUses(0)).toBe(0.5);
    for (let step = 0; step < 8 * 600; ++step) {
      uses.advance(1);
      if (step % 8 === 0) uses.record(1, 0);
    }
    // A use every half-life sums to 1 + 1/2 + 1/4 + ..., seven tokens ago.
    expect(uses.decayedUses(1)).toBeCloseTo(2 * 2 ** (-7 / 8), 9);
    expect(uses.decayedUses(0)).toBeLessThan(1e-100);
    expect(uses.counts[1]).toBe(601);
  });

  it('advances two half-lives at most for a prefill chunk', () => {
    const uses = new UseCounts(1, 1, 8, new Float32Array(1));
    uses.record(0, 0);
    uses.advance(512);
    expect(uses.decayedUses(0)).toBe(0.25);
    expect(uses.clock).toBe(16);
  });
});

describe('eviction policies', () => {
  const uses = {
    counts: Float64Array.of(5, 2, 2, 9),
    decayed: Float64Array.of(0.5, 0.7, 0.1, 0.1),
    lastUse: Float64Array.of(1, 6, 4, 4),
    worth: Float32Array.of(-1, -2, -2, -0.5),
    layers: 1,
    experts: 4,
  };
  it.each([
    ['lru', lru, 0],
    ['lfu', lfu, 2],
    ['lfuDecay', lfuDecay, 2],
    ['lfuDecayLayer', lfuDecayLayer, 2],
    ['edgeMoe', edgeMoe, 2],
    ['hobbit', hobbit, 0],
    ['expectedUse', expectedUse, 2],
  ] as const)('%s chooses its victim among the candidates, the lower key among equals', (_, choose, victim) => {
    expect(choose(Int32Array.of(3, 2, 1, 0), 4, uses, 0)).toBe(victim);
    expect(choose(Int32Array.of(3, 1, 0), 1, uses, 0)).toBe(3);
    expect(choose(Int32Array.of(3), 0, uses, 0)).toBe(-1);
  });

  it.each([
    ['lfuDecayLayer', lfuDecayLayer],
    ['edgeMoe', edgeMoe],
    ['hobbit', hobbit],
    ['expectedUse', expectedUse],
  ] as const)('%s spares the layer whose turn is next and takes from the one that has just run', (_, choose) => {
    const alike = {
      counts: new Float64Array(4).fill(3),
      decayed: new Float64Array(4).fill(3),
      lastUse: new Float64Array(4).fill(3),
      worth: new Float32Array(4).fill(-1),
      layers: 4,
      experts: 1,
    };
    expect(choose(Int32Array.of(0, 1, 2, 3), 4, alike, 1)).toBe(1);
    expect(choose(Int32Array.of(0, 2, 3), 3, alike, 1)).toBe(0);
  });
});
