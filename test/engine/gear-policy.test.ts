import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  chooseGear,
  type GearFacts,
  groupAlike,
  TURN_TOKENS_MAX,
  turnMs,
  turnTokens,
} from '../../src/engine/gear-policy.js';

const FACTS: GearFacts = {
  gear: 'joint',
  groups: 4,
  stallShare: 0.5,
  turnTokens: 64,
  jointTps: 10,
  burstTps: null,
  mayTry: true,
};

describe('chooseGear()', () => {
  it.each<[string, Partial<GearFacts>, 'joint' | 'burst']>([
    ['reads hold unlike streams up: bursts are tried', {}, 'burst'],
    ['memory is the limit', { stallShare: 0.05 }, 'joint'],
    ['all streams are alike', { groups: 1 }, 'joint'],
    ['turns would be too short', { turnTokens: 7 }, 'joint'],
    ['there is nothing to compare with yet', { jointTps: null }, 'joint'],
    ['bursts did not pay a moment ago', { burstTps: 8, mayTry: false }, 'joint'],
    ['bursts did not pay, but long ago', { burstTps: 8, mayTry: true }, 'burst'],
    ['bursts are not measured yet', { gear: 'burst', mayTry: false }, 'burst'],
    ['bursts are faster', { gear: 'burst', burstTps: 12, mayTry: false }, 'burst'],
    ['bursts gain too little for their spurts', { gear: 'burst', burstTps: 10.2, mayTry: false }, 'joint'],
    ['joint steps were measured too long ago', { gear: 'burst', jointTps: null, burstTps: 12 }, 'joint'],
  ])('%s', (_why, facts, gear) => {
    expect(chooseGear({ ...FACTS, ...facts })).toBe(gear);
  });
});

describe('turnTokens()', () => {
  it.each([
    { groups: 2, gapMs: 2000, stepMs: 20, tokens: 98 },
    { groups: 4, gapMs: 2000, stepMs: 20, tokens: 32 },
    { groups: 4, gapMs: 60_000, stepMs: 20, tokens: TURN_TOKENS_MAX },
    { groups: 4, gapMs: 0, stepMs: 20, tokens: 0 },
    { groups: 2, gapMs: 2000, stepMs: 0, tokens: TURN_TOKENS_MAX },
  ])(
    'gives $tokens tokens to one of $groups groups in $gapMs ms at $stepMs ms',
    ({ groups, gapMs, stepMs, tokens }) => {
      expect(turnTokens(groups, gapMs, stepMs)).toBe(tokens);
    },
  );

  it('keeps the gap whatever the groups: turns end with the step in which their time is over', () => {
    const at = fc.record({
      groups: fc.integer({ min: 2, max: 16 }),
      gapMs: fc.integer({ min: 100, max: 10_000 }),
      stepMs: fc.integer({ min: 1, max: 50 }),
    });
    fc.assert(
      fc.property(at, ({ groups, gapMs, stepMs }) => {
        const wait = (groups - 1) * (Math.max(0, turnMs(groups, gapMs, stepMs)) + stepMs) + stepMs;
        expect(wait).toBeLessThanOrEqual(Math.max(gapMs, groups * stepMs) + 1e-6);
      }),
      { numRuns: 300, seed: 3 },
    );
  });
});

describe('groupAlike()', () => {
  const likeness = (a: number, b: number): number | null => (a === 9 || b === 9 ? null : a % 2 === b % 2 ? 0.8 : 0.1);

  it('puts streams that are alike together, in order, and leaves the unknown alone', () => {
    expect(groupAlike([1, 2, 3, 9, 4, 5], likeness)).toEqual([0, 1, 0, 2, 1, 0]);
    expect(groupAlike([], likeness)).toEqual([]);
  });
});
