import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { expectedUse } from '../../src/experts/eviction/expected-use.js';
import { lfu } from '../../src/experts/eviction/lfu.js';
import { lfuDecay } from '../../src/experts/eviction/lfu-decay.js';
import { lru } from '../../src/experts/eviction/lru.js';
import { createLayerPlan, type LayerPlan } from '../../src/experts/layer-plan.js';
import { planExperts, planResident, type Routing } from '../../src/experts/plan.js';
import { planSettings } from '../../src/experts/plan-settings.js';
import { Residency } from '../../src/experts/residency.js';

const LEVELS = [2, 3, 4, 8];

interface Shape {
  readonly layers: number;
  readonly experts: number;
  readonly topK: number;
}

/** Routing of a step from rows of expert ids; every rank at `level` unless levels are given. */
function routing(layer: number, rows: readonly (readonly number[])[], level = 4, levels?: readonly number[]): Routing {
  const topK = rows[0]!.length;
  const weights = Float32Array.from(rows.flatMap((row) => row.map((_, rank) => (topK - rank) / 10)));
  return {
    layer,
    tokens: rows.length,
    topK,
    ids: Uint16Array.from(rows.flat()),
    weights,
    levels: levels === undefined ? new Uint8Array(weights.length).fill(level) : Uint8Array.from(levels),
    live: new Uint8Array(rows.length).fill(1),
  };
}

function setUp(shape: Shape, slots: { experts: number; extraBits?: number; fullLevel?: number }, tokens: number) {
  const fullLevel = slots.fullLevel ?? 4;
  const residency = new Residency({
    layers: shape.layers,
    experts: shape.experts,
    bitSlots: slots.experts * fullLevel + (slots.extraBits ?? 0),
    scaleSlots: slots.experts,
    fullLevel,
    topK: shape.topK,
  });
  const settings = planSettings(residency, LEVELS, shape.topK);
  return { residency, settings, plan: createLayerPlan(shape.layers, shape.experts, tokens, shape.topK) };
}

/** Carries a plan out as forward.ts does: waves prepared one ahead, every read landing before its wave ends. */
function carryOut(plan: LayerPlan, residency: Residency, failing: ReadonlySet<number> = new Set()): void {
  const inFlight: number[] = [];
  const prepare = (wave: number): void => {
    residency.apply(plan, wave);
    for (let i = plan.waveReads[wave]!; i < plan.waveReads[wave + 1]!; ++i) inFlight.push(plan.readKeys[i]!);
    residency.checkInvariants();
  };
  if (plan.waveCount > 0) prepare(0);
  for (let wave = 0; wave < plan.waveCount; ++wave) {
    const hasNext = wave + 1 < plan.waveCount;
    if (hasNext && plan.waveSerial[wave + 1] === 0) prepare(wave + 1);
    for (const key of inFlight.splice(0)) residency.landed(key, failing.has(key) ? 5 : 0);
    for (let group = plan.waveGroups[wave]!; group < plan.waveGroups[wave + 1]!; ++group) {
      const key = plan.layer * residency.experts + plan.groupExperts[group]!;
      if (!failing.has(key)) expect(residency.residentBits[key]).toBeGreaterThanOrEqual(plan.groupLevels[group]!);
    }
    residency.release(plan, wave);
    if (hasNext && plan.waveSerial[wave + 1] === 1) prepare(wave + 1);
  }
  residency.checkInvariants();
}

function assignmentsOf(plan: LayerPlan) {
  const served: { at: number; expert: number; level: number }[] = [];
  for (let group = 0; group < plan.groupCount; ++group) {
    for (let i = 0; i < plan.groupCounts[group]!; ++i) {
      const at = plan.assignments[plan.groupFirst[group]! + i]!;
      served.push({ at, expert: plan.groupExperts[group]!, level: plan.groupLevels[group]! });
    }
  }
  return served.sort((a, b) => a.at - b.at);
}

const keysOf = (list: Int32Array, count: number): number[] => Array.from(list.subarray(0, count));

describe('planExperts()', () => {
  const shape = { layers: 2, experts: 8, topK: 2 };

  it('waits for what is read on a guess instead of reading it again, and runs it with the first', () => {
    const { residency, settings, plan } = setUp(shape, { experts: 8 }, 1);
    residency.speculate(8 + 5, 4);
    planExperts(routing(1, [[5, 1]]), residency, settings, plan);
    expect(keysOf(plan.readKeys, plan.readCount)).toEqual([8 + 1]);
    expect(plan).toMatchObject({ hits: 0, misses: 2, missedBitSlots: 4, missedScaleSlots: 1, waveCount: 1 });
    expect(assignmentsOf(plan).map(({ expert }) => expert)).toEqual([5, 1]);
    residency.landed(8 + 5, 0);
    planExperts(routing(1, [[5, 1]]), residency, settings, plan);
    expect(plan).toMatchObject({ hits: 1, misses: 1, readCount: 1 });
  });

  it('takes the slots of a wrong guess before any other, however cold', () => {
    const { residency, settings, plan } = setUp(shape, { experts: 4 }, 1);
    for (const expert of [0, 1, 2]) {
      residency.speculate(8 + expert, 4);
      residency.landed(8 + expert, 0);
      residency.used(8 + expert);
    }
    residency.speculate(8 + 3, 4);
    residency.landed(8 + 3, 0);
    residency.uses.advance(1);
    residency.uses.record(8 + 3, 0);
    planExperts(routing(1, [[0, 7]]), residency, settings, plan);
    expect(keysOf(plan.evictKeys, plan.evictCount)).toEqual([8 + 3]);
    carryOut(plan, residency);
    expect(residency.probationEvictions).toBe(1);
  });

  it('never takes the slots of a read that is on its way', () => {
    const { residency, settings, plan } = setUp(shape, { experts: 2 }, 1);
    residency.speculate(8 + 3, 4);
    planExperts(routing(1, [[0, 7]]), residency, settings, plan);
    expect(plan.waveCount).toBe(2);
    expect(keysOf(plan.evictKeys, plan.evictCount)).toEqual([8]);
  });

  it('reads each missing expert once when tokens share it, hottest first', () => {
    const { residency, settings, plan } = setUp(shape, { experts: 8 }, 3);
    planExperts(
      routing(1, [
        [5, 1],
        [5, 2],
        [2, 5],
      ]),
      residency,
      settings,
      plan,
    );
    expect(keysOf(plan.readKeys, plan.readCount)).toEqual([8 + 5, 8 + 2, 8 + 1]);
    expect(plan).toMatchObject({ hits: 0, misses: 3, waveCount: 1, missedBitSlots: 12, missedScaleSlots: 3 });
  });

  it('runs resident experts first and reads nothing for them', () => {
    const { residency, settings, plan } = setUp(shape, { experts: 8 }, 2);
    carryOut(planExperts(routing(0, [[3, 6]]), residency, settings, plan), residency);
    planExperts(
      routing(0, [
        [1, 6],
        [1, 3],
      ]),
      residency,
      settings,
      plan,
    );
    expect(keysOf(plan.readKeys, plan.readCount)).toEqual([1]);
    expect(keysOf(plan.groupExperts, plan.groupCount)).toEqual([3, 6, 1]);
    expect(plan).toMatchObject({ hits: 2, misses: 1 });
  });

  it('reads only the missing planes of an expert that is resident with fewer bits', () => {
    const { residency, settings, plan } = setUp(shape, { experts: 8 }, 2);
    carryOut(planExperts(routing(0, [[3, 6]], 2), residency, settings, plan), residency);
    planExperts(routing(0, [[3, 6]], 4, [4, 2]), residency, settings, plan);
    expect([plan.readCount, plan.readKeys[0], plan.readFrom[0], plan.readBits[0]]).toEqual([1, 3, 2, 4]);
    expect(plan).toMatchObject({ hits: 1, misses: 1, missedBitSlots: 2, missedScaleSlots: 0 });
    carryOut(plan, residency);
    expect(residency.residentByBits()).toEqual({ 2: 1, 4: 1 });
  });

  it('serves an expert wanted at two levels by two groups and one read', () => {
    const { residency, settings, plan } = setUp(shape, { experts: 8 }, 2);
    planExperts(
      routing(
        0,
        [
          [3, 6],
          [3, 6],
        ],
        4,
        [4, 2, 2, 2],
      ),
      residency,
      settings,
      plan,
    );
    expect(plan.readCount).toBe(2);
    expect(assignmentsOf(plan)).toEqual([
      { at: 0, expert: 3, level: 4 },
      { at: 1, expert: 6, level: 2 },
      { at: 2, expert: 3, level: 2 },
      { at: 3, expert: 6, level: 2 },
    ]);
  });

  it('leaves out tokens whose sequence has failed', () => {
    const { residency, settings, plan } = setUp(shape, { experts: 8 }, 2);
    const step = routing(0, [
      [3, 6],
      [1, 2],
    ]);
    step.live[0] = 0;
    planExperts(step, residency, settings, plan);
    expect(assignmentsOf(plan).map(({ at }) => at)).toEqual([2, 3]);
    step.live[1] = 0;
    expect(planExperts(step, residency, settings, plan)).toMatchObject({ waveCount: 0, groupCount: 0, readCount: 0 });
  });

  it('throws EXPERTS_EXCEED_SLOTS when not even one expert fits', () => {
    const residency = new Residency({ layers: 1, experts: 4, bitSlots: 3, scaleSlots: 2, fullLevel: 4 });
    const settings = planSettings(residency, LEVELS, 1);
    const plan = createLayerPlan(1, 4, 1, 1);
    expect(() => planExperts(routing(0, [[1]]), residency, settings, plan)).toThrow(
      expect.objectContaining({ code: 'EXPERTS_EXCEED_SLOTS' }),
    );
  });

  it('lets resident planes of experts wanted later go when nothing else is left', () => {
    const { residency, settings, plan } = setUp({ layers: 1, experts: 4, topK: 2 }, { experts: 4, fullLevel: 2 }, 1);
    carryOut(planExperts(routing(0, [[0, 1]], 2), residency, settings, plan), residency);
    carryOut(planExperts(routing(0, [[2, 3]], 2), residency, settings, plan), residency);
    // All eight bit slots hold bases, and both experts want twice that.
    planExperts(routing(0, [[0, 1]], 8), residency, settings, plan);
    carryOut(plan, residency);
    expect(assignmentsOf(plan).map(({ at }) => at)).toEqual([0, 1]);
  });

  it('streams a prompt chunk in waves that leave most of the other layers alone', () => {
    const big = { layers: 8, experts: 64, topK: 2 };
    const { residency, settings, plan } = setUp(big, { experts: 128 }, 64);
    const rows = (from: number) => Array.from({ length: 8 }, (_, i) => [from + 2 * i, from + 2 * i + 1]);
    for (let layer = 0; layer < 8; ++layer)
      carryOut(planExperts(routing(layer, rows(0)), residency, settings, plan), residency);
    expect(residency.freeScales).toBe(0);
    const all = Array.from({ length: 32 }, (_, i) => [2 * i, 2 * i + 1]);
    planExperts(routing(3, all), residency, settings, plan);
    const before = residency.layerExperts.slice();
    expect(plan.waveCount).toBeGreaterThan(4);
    expect(keysOf(plan.waveSerial as unknown as Int32Array, plan.waveCount).every((serial) => serial === 0)).toBe(true);
    carryOut(plan, residency);
    const lost = before.reduce((sum, count, layer) => sum + Math.max(0, count - residency.layerExperts[layer]!), 0);
    expect(lost).toBeLessThanOrEqual(settings.streamWindow);
  });

  it('holds for any routing, levels, slots and failures: each pair once, each expert once, floors kept', () => {
    const step = fc.record({
      layer: fc.integer({ min: 0, max: 2 }),
      rows: fc.array(fc.uniqueArray(fc.integer({ min: 0, max: 9 }), { minLength: 3, maxLength: 3 }), {
        minLength: 1,
        maxLength: 12,
      }),
      levels: fc.array(fc.constantFrom(2, 3, 4, 8), { minLength: 36, maxLength: 36 }),
      dead: fc.integer({ min: -1, max: 11 }),
      failing: fc.array(fc.integer({ min: 0, max: 29 }), { maxLength: 2 }),
    });
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 1, max: 30 }),
        fc.integer({ min: 0, max: 9 }),
        fc.constantFrom(lru, lfu, lfuDecay, expectedUse),
        (steps, experts, extraBits, chooseVictim) => {
          const { residency, plan } = setUp(
            { layers: 3, experts: 10, topK: 3 },
            { experts, extraBits, fullLevel: 8 },
            12,
          );
          const settings = planSettings(residency, LEVELS, 3, chooseVictim);
          for (const { layer, rows, levels, dead, failing } of steps) {
            const asked = routing(layer, rows, 4, levels.slice(0, rows.length * 3));
            if (dead >= 0 && dead < rows.length) asked.live[dead] = 0;
            residency.uses.advance(rows.length);
            for (const [i, id] of asked.ids.entries()) residency.uses.record(layer * 10 + id, Math.floor(i / 3));
            const held = residency.layerExperts.slice();
            planExperts(asked, residency, settings, plan);

            const wanted = [...asked.ids.keys()].filter((at) => asked.live[Math.floor(at / 3)] === 1);
            expect(assignmentsOf(plan)).toEqual(
              wanted.map((at) => ({ at, expert: asked.ids[at], level: asked.levels[at] })),
            );
            const reads = keysOf(plan.readKeys, plan.readCount);
            expect(new Set(reads).size).toBe(reads.length);
            expect(plan.hits + plan.misses).toBe(new Set(wanted.map((at) => asked.ids[at])).size);
            carryOut(plan, residency, new Set(failing));
            for (let other = 0; other < 3; ++other) {
              if (other === layer) continue;
              const kept = Math.min(held[other]!, residency.floors[other]!);
              expect(residency.layerExperts[other]).toBeGreaterThanOrEqual(kept);
            }
          }
        },
      ),
      { numRuns: 300, seed: 11 },
    );
  });
});

describe('eviction without prefetch', () => {
  /** Hits of Belady's optimum on one layer: the expert used again last goes, and a miss always enters. */
  function beladyHits(trace: readonly (readonly number[])[], capacity: number): number {
    const resident = new Set<number>();
    let hits = 0;
    for (const [step, row] of trace.entries()) {
      for (const id of row) if (resident.has(id)) ++hits;
      for (const id of row) {
        if (resident.has(id)) continue;
        if (resident.size >= capacity) {
          const nextUse = (other: number): number => {
            const next = trace.findIndex((later, at) => at > step && later.includes(other));
            return next < 0 ? Number.POSITIVE_INFINITY : next;
          };
          const victim = [...resident]
            .filter((other) => !row.includes(other))
            .sort((a, b) => nextUse(b) - nextUse(a))[0]!;
          resident.delete(victim);
        }
        resident.add(id);
      }
    }
    return hits;
  }

  it.each([
    ['lru', lru],
    ['lfu', lfu],
    ['lfuDecay', lfuDecay],
    ['expectedUse', expectedUse],
  ] as const)('has no hit rate above Belady for %s', (_, chooseVictim) => {
    fc.assert(
      fc.property(
        fc.array(fc.uniqueArray(fc.integer({ min: 0, max: 11 }), { minLength: 2, maxLength: 2 }), {
          minLength: 20,
          maxLength: 80,
        }),
        fc.integer({ min: 2, max: 10 }),
        (trace, capacity) => {
          const { residency, plan } = setUp({ layers: 1, experts: 12, topK: 2 }, { experts: capacity }, 1);
          const settings = planSettings(residency, LEVELS, 2, chooseVictim);
          let hits = 0;
          for (const row of trace) {
            residency.uses.advance(1);
            for (const id of row) residency.uses.record(id, 0);
            residency.reuse.beginStep(1, [0], [1], capacity);
            residency.reuse.observe(routing(0, [row]), residency.residentBits, capacity);
            hits += planExperts(routing(0, [row]), residency, settings, plan).hits;
            carryOut(plan, residency);
          }
          expect(hits).toBeLessThanOrEqual(beladyHits(trace, capacity));
        },
      ),
      { numRuns: 60, seed: 3 },
    );
  });
});

describe('planResident()', () => {
  const shape = { layers: 3, experts: 32, topK: 4 };
  /** What a plan tells its readers. */
  const told = (plan: LayerPlan) => ({
    counts: [plan.layer, plan.waveCount, plan.groupCount, plan.readCount, plan.evictCount, plan.hits, plan.misses],
    missed: [plan.missedBitSlots, plan.missedScaleSlots],
    waves: [plan.waveGroups, plan.waveReads, plan.waveEvicts].map((of) => [...of.subarray(0, plan.waveCount + 1)]),
    serial: [...plan.waveSerial.subarray(0, plan.waveCount)],
    groups: [plan.groupExperts, plan.groupLevels, plan.groupFirst, plan.groupCounts].map((of) => [
      ...of.subarray(0, plan.groupCount),
    ]),
    assignments: [...plan.assignments.subarray(0, plan.groupCount)],
  });

  it('makes the plan that planExperts() makes where all experts of one token are resident', () => {
    const ids = fc.uniqueArray(fc.integer({ min: 0, max: shape.experts - 1 }), { minLength: 4, maxLength: 4 });
    const levels = fc.array(fc.constantFrom(2, 3, 4), { minLength: 4, maxLength: 4 });
    fc.assert(
      fc.property(ids, levels, fc.integer({ min: 0, max: 2 }), ids, (chosen, wanted, layer, before) => {
        const { residency, settings, plan } = setUp(shape, { experts: 96 }, 4);
        const quick = createLayerPlan(shape.layers, shape.experts, 4, shape.topK);
        carryOut(planExperts(routing(layer, [chosen, before]), residency, settings, plan), residency);
        const of = routing(layer, [chosen], 4, wanted);
        // What an earlier layer left in the arrays does not shine through.
        planExperts(routing((layer + 1) % 3, [before, chosen]), residency, settings, quick);
        expect(planResident(of, residency, quick)).toBe(true);
        expect(told(quick)).toEqual(told(planExperts(of, residency, settings, plan)));
      }),
    );
  });

  it('leaves to planExperts() what needs a read, a failed sequence, several tokens, an expert chosen twice', () => {
    const { residency, settings, plan } = setUp(shape, { experts: 96 }, 4);
    carryOut(planExperts(routing(1, [[1, 2, 3, 4]], 3), residency, settings, plan), residency);
    expect(planResident(routing(1, [[1, 2, 3, 4]], 3), residency, plan)).toBe(true);
    expect(planResident(routing(1, [[1, 2, 3, 5]], 3), residency, plan)).toBe(false);
    expect(planResident(routing(1, [[1, 2, 3, 4]], 3, [3, 3, 4, 3]), residency, plan)).toBe(false);
    expect(planResident(routing(0, [[1, 2, 3, 4]], 3), residency, plan)).toBe(false);
    expect(planResident(routing(1, [[1, 2, 4, 2]], 3), residency, plan)).toBe(false);
    const twice = [1, 2, 3, 4];
    expect(planResident(routing(1, [twice, twice], 3), residency, plan)).toBe(false);
    const failed = routing(1, [[1, 2, 3, 4]], 3);
    failed.live[0] = 0;
    expect(planResident(failed, residency, plan)).toBe(false);
  });
});
