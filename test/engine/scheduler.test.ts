import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { scheduleStep } from '../../src/engine/scheduler.js';

const schedule = (pending: readonly number[], stepTokens: number, lastSteps: readonly number[] = []): number[] => {
  const out = new Int32Array(pending.length + 1).fill(77);
  const sequences = pending.map((count, i) => ({ pending: count, lastStep: lastSteps[i] ?? -1 }));
  const total = scheduleStep(sequences, stepTokens, out);
  const counts = Array.from(out.subarray(0, pending.length));
  expect(total).toBe(counts.reduce((sum, count) => sum + count, 0));
  return counts;
};

describe('scheduleStep()', () => {
  it.each([
    { pending: [1, 1, 100], tokens: 16, counts: [1, 1, 14], why: 'decode first, the prompt takes the rest' },
    { pending: [100, 100], tokens: 16, counts: [8, 8], why: 'prompts share equally' },
    { pending: [100, 3, 1], tokens: 17, counts: [13, 3, 1], why: 'a short prompt leaves its share to the long one' },
    { pending: [100, 100, 100], tokens: 16, counts: [6, 5, 5], why: 'what does not divide goes to the first' },
    { pending: [0, 5], tokens: 16, counts: [0, 5], why: 'one that waits for its reader does not run' },
    { pending: [], tokens: 16, counts: [], why: 'nothing is nothing' },
  ])('gives $counts for $pending in $tokens tokens: $why', ({ pending, tokens, counts }) => {
    expect(schedule(pending, tokens)).toEqual(counts);
  });

  it('serves those that waited longest when a step cannot hold one token of each', () => {
    expect(schedule([1, 9, 1, 1], 2, [4, 2, 3, 4])).toEqual([0, 1, 1, 0]);
  });

  it('fills the step or runs all that is pending, and gives each runnable sequence a token where it can', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 8 }),
        fc.integer({ min: 1, max: 64 }),
        (pending, tokens) => {
          const counts = schedule(pending, tokens);
          const wanted = pending.reduce((sum, count) => sum + count, 0);
          expect(counts.reduce((sum, count) => sum + count, 0)).toBe(Math.min(wanted, tokens));
          const runnable = pending.filter((count) => count > 0).length;
          for (const [i, count] of counts.entries()) {
            expect(count).toBeLessThanOrEqual(pending[i]!);
            if (runnable <= tokens && pending[i]! > 0) expect(count).toBeGreaterThan(0);
          }
        },
      ),
      { numRuns: 500, seed: 5 },
    );
  });

  it('lets none starve with one token a step', () => {
    const sequences = [1, 50, 1, 50].map((pending) => ({ pending, lastStep: -1 }));
    const served = [0, 0, 0, 0];
    const out = new Int32Array(4);
    for (let step = 0; step < 40; ++step) {
      scheduleStep(sequences, 1, out);
      const i = out.indexOf(1);
      served[i] = served[i]! + 1;
      sequences[i]!.lastStep = step;
    }
    expect(served).toEqual([10, 10, 10, 10]);
  });
});
