import { describe, expect, it } from 'vitest';
import { BenefitSwitch } from '../../../src/experts/prediction/benefit-switch.js';
import { ByteBucket } from '../../../src/experts/prediction/byte-bucket.js';
import { believed, createGuesses, rankAbsent } from '../../../src/experts/prediction/choose-guesses.js';
import { Confidence } from '../../../src/experts/prediction/confidence.js';
import { PairStatistics } from '../../../src/experts/prediction/pair-statistics.js';

describe('rankAbsent()', () => {
  const scores = Float32Array.of(0.1, 5, 3, 4, -2, 3);
  const ranked = (most: number, absent: readonly number[]) => {
    const guesses = rankAbsent(scores, 2, (expert) => absent.includes(expert), createGuesses(most, scores.length));
    return Array.from(guesses.experts.subarray(0, guesses.count));
  };

  it.each<[number, readonly number[], readonly number[]]>([
    [4, [0, 1, 2, 3, 4, 5], [1, 3, 2, 5]],
    [2, [0, 2, 4, 5], [2, 5]],
    [4, [4, 0], [0, 4]],
    [4, [], []],
  ])('names at most %i of the absent %j, best first: %j', (most, absent, expected) => {
    expect(ranked(most, absent)).toEqual(expected);
  });

  it('measures scores from the one that is just about chosen', () => {
    const guesses = rankAbsent(scores, 2, (expert) => expert !== 1, createGuesses(3, scores.length));
    expect(guesses.margins[0]).toBe(0);
    expect(guesses.margins[1]).toBeLessThan(0);
  });
});

describe('Confidence', () => {
  it('learns for each margin on its own how often guesses are right', () => {
    const confidence = new Confidence();
    for (let i = 0; i < 400; ++i) {
      confidence.observe(1.5, true);
      confidence.observe(-0.5, i % 4 === 0);
    }
    expect(confidence.of(1.5)).toBeGreaterThan(0.95);
    expect(confidence.of(-0.5)).toBeCloseTo(0.25, 1);
    expect(confidence.of(1)).toBe(0.5);
    const guesses = createGuesses(3, 4);
    guesses.count = 3;
    guesses.margins.set([1.5, 1, -0.5]);
    expect([0.9, 0.5, 0.2].map((least) => believed(guesses, confidence, least))).toEqual([1, 2, 3]);
  });
});

describe('ByteBucket', () => {
  it('lets a share of what is read on demand be wasted, and no more', () => {
    const bucket = new ByteBucket(0.2, 1000);
    let wasted = 0;
    let read = 0;
    for (let step = 0; step < 1000; ++step) {
      bucket.earn(300);
      read += 300;
      if (bucket.bytes >= 100) {
        bucket.spend(100);
        wasted += 100;
        read += 100;
      }
    }
    expect(wasted).toBeGreaterThan(0.1 * read);
    expect(wasted - 1000).toBeLessThanOrEqual(0.2 * read);
  });

  it('gives back what was of use, up to its size', () => {
    const bucket = new ByteBucket(0.2, 1000);
    bucket.spend(700);
    bucket.refund(500);
    expect(bucket.bytes).toBe(800);
    bucket.refund(500);
    expect(bucket.bytes).toBe(1000);
  });
});

describe('BenefitSwitch', () => {
  /** Steps until the next verdict, taking so long with and without. */
  const untilVerdict = (benefit: BenefitSwitch, withMs: number, withoutMs: number) => {
    let trialSteps = 0;
    for (;;) {
      ++trialSteps;
      const verdict = benefit.stepped(benefit.isOn ? withMs : withoutMs);
      if (verdict !== null) return { ...verdict, trialSteps };
      if (trialSteps > 1e5) throw new Error('no verdict');
    }
  };

  it('stops what takes longer, tries anew later, and goes on when it pays by then', () => {
    const benefit = new BenefitSwitch();
    expect(untilVerdict(benefit, 12, 10)).toMatchObject({ pays: false, withMs: 12, withoutMs: 10 });
    expect(benefit.isOn).toBe(false);
    expect(untilVerdict(benefit, 9, 10)).toMatchObject({ pays: true, withMs: 9, withoutMs: 10 });
    expect(benefit.isOn).toBe(true);
  });

  it('spends little of its time on what does not pay', () => {
    const benefit = new BenefitSwitch();
    let on = 0;
    for (let step = 0; step < 20_000; ++step) {
      if (benefit.isOn) ++on;
      benefit.stepped(benefit.isOn ? 12 : 10);
    }
    expect(on).toBeLessThan(0.03 * 20_000);
  });
});

describe('PairStatistics', () => {
  it('names the experts that follow from those of the layer before', () => {
    const statistics = new PairStatistics(2, 8);
    for (let token = 0; token < 50; ++token) {
      const before = Uint16Array.of(token % 4, 4);
      statistics.observe(0, before, before, 0, 2);
      statistics.observe(1, before, Uint16Array.of((token % 4) + 4, 0), 0, 2);
    }
    const scores = new Float32Array(8);
    const best = (before: number) => {
      statistics.score(1, Uint16Array.of(before, 4), 0, 2, scores);
      return [...scores.keys()].sort((a, b) => scores[b]! - scores[a]!).slice(0, 2);
    };
    expect([0, 1, 2, 3].map((before) => best(before).toSorted())).toEqual([
      [0, 4],
      [0, 5],
      [0, 6],
      [0, 7],
    ]);
  });

  it('forgets: a newer habit wins over an older one of many more tokens', () => {
    const statistics = new PairStatistics(2, 4);
    const observe = (expert: number, times: number) => {
      for (let i = 0; i < times; ++i) {
        statistics.observe(0, Uint16Array.of(0), Uint16Array.of(0), 0, 1);
        statistics.observe(1, Uint16Array.of(0), Uint16Array.of(expert), 0, 1);
      }
    };
    observe(1, 20_000);
    observe(2, 5_000);
    const scores = new Float32Array(4);
    statistics.score(1, Uint16Array.of(0), 0, 1, scores);
    expect(scores[2]).toBeGreaterThan(scores[1]!);
  });
});
