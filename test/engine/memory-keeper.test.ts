/** The budget while the engine runs, over the fake native half, which checks every slot that is moved or given back. */
import { describe, expect, it } from 'vitest';
import type { Pressure } from '../../src/engine/memory-watch.js';
import {
  CALM,
  fakeEngine,
  TOY_ARCHITECTURE,
  TOY_GEOMETRY,
  TOY_KV_BLOCK_BYTES,
  TOY_MOE_LAYERS,
  toyBudget,
  toyRequest,
} from '../helpers/fake-engine.js';

const EXPERT = 4 * TOY_GEOMETRY.bitBytes + TOY_GEOMETRY.scaleBytes;
const ALL = TOY_ARCHITECTURE.expertCount * TOY_MOE_LAYERS.length;

/** Answers of four streams, with `between` called before each step. */
function answers(keptExpertBytes: number, between: (step: number, made: ReturnType<typeof fakeEngine>) => void) {
  const made = fakeEngine({ keptExpertBytes, experts: 8, kvBlocks: 16 });
  for (let id = 1; id <= 4; ++id) made.engine.generate(id, toyRequest(id, 9 + id, 40));
  for (let step = 0; made.engine.hasWork; ++step) {
    between(step, made);
    made.engine.step();
    made.engine.residency.checkInvariants();
  }
  const tokens = [1, 2, 3, 4].map((id) => {
    expect(made.outcome(id).error).toBeNull();
    expect(made.outcome(id).events.at(-1)).toMatchObject({ kind: 'finish', reason: 'length' });
    return made.outcome(id).tokens;
  });
  return { ...made, tokens };
}

describe('MemoryKeeper', () => {
  const reference = answers(ALL * EXPERT, () => {});

  it('gives slots all memory that nobody else takes, and takes it back when KV blocks are written', () => {
    const { engine } = fakeEngine({ keptExpertBytes: 20 * EXPERT, experts: 8, kvBlocks: 16 });
    const before = engine.residency.bitSlots;
    expect(before).toBeGreaterThanOrEqual(4 * 19);
    engine.generate(1, toyRequest(1, 100, 1));
    engine.step();
    const { parts, allowedBytes } = engine.memory(null);
    expect(parts.kv).toBeGreaterThan(0);
    expect(engine.residency.bitSlots).toBeLessThan(before);
    expect(Object.values(parts).reduce((sum, bytes) => sum + bytes, 0)).toBe(allowedBytes);
  });

  it('shrinks and grows while four streams run: the same answers, and memory below the new budget', () => {
    const small = toyBudget(10 * EXPERT, 16);
    const large = toyBudget(ALL * EXPERT, 16);
    let shrunken = 0;
    const run = answers(ALL * EXPERT, (step, { engine, native }) => {
      if (step === 10) expect(engine.memory(small)).toMatchObject({ budgetBytes: small });
      if (step === 20) {
        expect(engine.memory(null).isSettled).toBe(true);
        expect(native.slotBytes).toBeLessThanOrEqual(engine.memory(null).parts.experts);
        shrunken = engine.residency.bitSlots;
        expect(native.populatedBytes).toBe(0);
        engine.memory(large);
        // Memory first, then reads into it.
        expect(engine.residency.bitSlots).toBeGreaterThan(2 * shrunken);
        expect(native.populatedBytes).toBeGreaterThan(shrunken * TOY_GEOMETRY.bitBytes);
      }
    });
    expect(run.tokens).toEqual(reference.tokens);
    expect(shrunken).toBeLessThanOrEqual(4 * 12);
    const { shedExperts, givenBackBytes } = run.engine.memory(null);
    expect(shedExperts).toBeGreaterThan(10);
    expect(givenBackBytes).toBeGreaterThan(10 * EXPERT);
    expect(run.native.slotBytes).toBeLessThanOrEqual(ALL * EXPERT);
  });

  it('answers the same whatever the budget does at each step', () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      let random = seed * 7919;
      const run = answers(ALL * EXPERT, (step, { engine }) => {
        random = (random * 48271) % 0x7fffffff;
        if (step % 2 === 0) engine.memory(toyBudget((7 + (random % (ALL - 7))) * EXPERT, 16));
      });
      expect(run.tokens).toEqual(reference.tokens);
      expect(run.engine.memory(null).resizes).toBeGreaterThan(10);
    }
  });

  it('drops the coldest experts, so that hot ones stay where they are used', () => {
    const run = answers(ALL * EXPERT, (step, { engine }) => {
      if (step !== 30) return;
      const { residency } = engine;
      const before = [...residency.residentBits].map((bits, key) => ({ bits, key }));
      engine.memory(toyBudget(18 * EXPERT, 16));
      const uses = ({ key }: { key: number }): number => residency.uses.decayedUses(key);
      const kept = before.filter(({ key }) => residency.residentBits[key]! > 0).map(uses);
      const gone = before.filter(({ bits, key }) => bits > 0 && residency.residentBits[key] === 0).map(uses);
      expect(gone.length).toBeGreaterThan(5);
      const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
      expect(mean(kept)).toBeGreaterThan(1.5 * mean(gone));
    });
    expect(run.tokens).toEqual(reference.tokens);
  });

  it('refuses a budget below the floor with both numbers, and changes nothing', () => {
    const { engine } = fakeEngine({ keptExpertBytes: 20 * EXPERT });
    const before = engine.memory(null);
    let details: Record<string, number> = {};
    try {
      engine.memory(8 << 20);
    } catch (error) {
      expect(error).toMatchObject({
        code: 'BUDGET_BELOW_FLOOR',
        message: expect.stringMatching(/8\.00 MiB.*at least/),
      });
      details = (error as { details: Record<string, number> }).details;
    }
    expect(details.budgetBytes).toBe(8 << 20);
    expect(engine.memory(null)).toEqual(before);
    const least = details.floorBytes! + (1 << 13);
    expect(engine.memory(least).budgetBytes).toBe(least);
  });

  it('takes KV blocks back from the newest requests last of all, and no request is lost', () => {
    const alone = [1, 2, 3, 4].map((id) => {
      const one = fakeEngine({ keptExpertBytes: ALL * EXPERT, kvBlocks: 16 });
      one.engine.generate(id, toyRequest(id, 60, 30));
      one.runAll();
      return one.outcome(id).tokens;
    });
    const made = fakeEngine({ keptExpertBytes: ALL * EXPERT, kvBlocks: 16 });
    for (let id = 1; id <= 4; ++id) made.engine.generate(id, toyRequest(id, 60, 30));
    while (made.engine.metrics().kvBlocksUsed < 12) made.engine.step();
    const floor = made.engine.memory(null).floorBytes;
    made.engine.memory(floor + 2 * TOY_KV_BLOCK_BYTES);
    expect(made.engine.metrics().kvBlocksUsed).toBeLessThanOrEqual(6);
    expect(made.engine.metrics().sequencesQueued).toBeGreaterThan(0);
    made.runAll();
    expect([1, 2, 3, 4].map((id) => made.outcome(id).tokens)).toEqual(alone);
  });

  it('follows a limit that is set around it down and up again, and admits nothing below the floor', () => {
    let pressure: Pressure = CALM;
    let clock = 0;
    const { engine, runAll, outcome } = fakeEngine({
      keptExpertBytes: ALL * EXPERT,
      readPressure: () => pressure,
      now: () => clock,
    });
    const tend = (times: number): void => {
      for (let i = 0; i < times; ++i) {
        clock += 500;
        engine.tend();
      }
    };
    const { budgetBytes } = engine.memory(null);
    const slots = engine.residency.bitSlots;
    pressure = { ...CALM, limitBytes: engine.memory(null).floorBytes };
    tend(1);
    expect(engine.memory(null)).toMatchObject({ budgetBytes, reason: 'a control group leaves less' });
    expect(engine.residency.bitSlots).toBeLessThan(slots);
    engine.generate(1, toyRequest(1, 9, 4));
    engine.generate(2, toyRequest(2, 9, 4));
    engine.step();
    expect(engine.metrics()).toMatchObject({ sequencesOpen: 1, sequencesQueued: 1 });
    pressure = CALM;
    tend(300);
    expect(engine.memory(null)).toMatchObject({ allowedBytes: budgetBytes, reason: null });
    // One KV block has been written meanwhile.
    expect(engine.residency.bitSlots).toBeGreaterThanOrEqual(slots - 4);
    runAll();
    expect(outcome(2).tokens).toHaveLength(4);
  });
});
