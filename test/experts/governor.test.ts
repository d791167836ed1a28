import { describe, expect, it } from 'vitest';
import { DEFAULT_STALL_SHARE, type GovernorGoal, nextPrice, priceInHurry } from '../../src/experts/governor.js';

/** A disk that takes 100 ms for all missing bits of a token at price 0 and fewer as the price rises; compute takes 50. */
const stepAt = (price: number, diskMs = 100) => {
  const stallMs = Math.max(
    0,
    diskMs * (0.2 + 0.8 * (1 - Math.min(1, (20 + Math.log2(Math.max(price, 2 ** -20))) / 20))) - 20,
  );
  return { stepMs: 50 + stallMs, stallMs };
};

function settle(goal: GovernorGoal, diskMs: number, from = 1): { price: number; stepMs: number; stallMs: number } {
  let price = from;
  for (let step = 0; step < 400; ++step) price = nextPrice(price, stepAt(price, diskMs), goal);
  return { price, ...stepAt(price, diskMs) };
}

describe('nextPrice()', () => {
  const waiting: GovernorGoal = { targetTps: null, stallShare: DEFAULT_STALL_SHARE };

  it.each([0, 1])('holds the share of waiting where it can, from a price of %i', (from) => {
    const { stepMs, stallMs, price } = settle(waiting, 100, from);
    expect(stallMs / stepMs).toBeCloseTo(DEFAULT_STALL_SHARE, 1);
    expect(price).toBeGreaterThan(0);
    expect(price).toBeLessThan(1);
  });

  it('holds a target rate where it can', () => {
    const { stepMs } = settle({ targetTps: 12.5, stallShare: 0.25 }, 100);
    expect(stepMs).toBeGreaterThan(76);
    expect(stepMs).toBeLessThan(84);
  });

  it('buys every bit when nothing waits, and none above the floors when nothing helps', () => {
    expect(settle(waiting, 10).price).toBe(0);
    expect(settle(waiting, 10_000).price).toBe(1);
    expect(settle({ targetTps: 1000, stallShare: 0.25 }, 100).price).toBe(1);
    expect(settle({ targetTps: 1, stallShare: 0.25 }, 100).price).toBe(0);
  });

  it('leaves the price alone for a step that took no time', () => {
    expect(nextPrice(0.5, { stepMs: 0, stallMs: 0 }, waiting)).toBe(0.5);
  });
});

describe('priceInHurry()', () => {
  const goal: GovernorGoal = { targetTps: 10, stallShare: 0.25 };

  it('raises the price of a token that is behind its deadline, up to 1', () => {
    expect(priceInHurry(0.1, 0.5, 50, goal)).toBe(0.1);
    expect(priceInHurry(0.1, 0.5, 60, goal)).toBeCloseTo(0.2, 5);
    expect(priceInHurry(0.1, 0.5, 500, goal)).toBe(1);
    expect(priceInHurry(0, 0.5, 60, goal)).toBeGreaterThan(0);
  });

  it('knows no hurry without a target', () => {
    expect(priceInHurry(0.1, 0.1, 5000, { targetTps: null, stallShare: 0.25 })).toBe(0.1);
  });
});
