import { describe, expect, it } from 'vitest';
import { Likeness } from '../../src/experts/likeness.js';

const KEYS = 64;

/** Streams that use `experts(token)` for so many tokens, one step a token. */
function used(tokens: number, streams: readonly ((token: number) => readonly number[])[], most = 8): Likeness {
  const likeness = new Likeness(KEYS, most);
  for (let token = 0; token < tokens; ++token) {
    likeness.beginStep();
    for (const [id, experts] of streams.entries()) {
      const own = likeness.open(id, 1);
      if (own !== null) for (const key of experts(token)) own[key] = own[key]! + 1;
    }
  }
  return likeness;
}

describe('Likeness', () => {
  it('of() is 1 for the same experts, 0 for others, and the share in common between', () => {
    const likeness = used(40, [() => [1, 2], () => [1, 2], () => [3, 4], () => [2, 3]]);
    expect(likeness.of(0, 1)).toBeCloseTo(1, 5);
    expect(likeness.of(0, 2)).toBe(0);
    expect(likeness.of(0, 3)).toBeCloseTo(0.5, 5);
  });

  it('of() finds streams alike that draw all experts evenly', () => {
    const likeness = used(512, [(token) => [(token * 7) % KEYS], (token) => [(token * 11 + 5) % KEYS]]);
    expect(likeness.of(0, 1)).toBeGreaterThan(0.7);
  });

  it('of() follows streams that change, as old uses fade', () => {
    const likeness = used(600, [() => [1], (token) => [token < 300 ? 1 : 2]]);
    expect(likeness.of(0, 1)).toBeLessThan(0.1);
  });

  it('of() is null for a stream of few tokens or unknown', () => {
    expect(used(8, [() => [1], () => [1]]).of(0, 1)).toBeNull();
    expect(used(40, [() => [1]]).of(0, 5)).toBeNull();
  });

  it('open() tells so many streams apart, forgets the one that was seen longest ago, and refuses one too many', () => {
    const likeness = used(40, [() => [1], () => [1]], 2);
    likeness.beginStep();
    expect(likeness.open(1, 1)).not.toBeNull();
    expect(likeness.open(9, 1)).not.toBeNull();
    expect(likeness.open(0, 1)).toBeNull();
    expect(likeness.of(0, 1)).toBeNull();
  });
});
