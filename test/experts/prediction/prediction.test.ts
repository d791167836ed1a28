import { describe, expect, it } from 'vitest';
import { BenefitSwitch } from '../../../src/experts/prediction/benefit-switch.js';
import { ByteBucket } from '../../../src/experts/prediction/byte-bucket.js';
import { believed, createGuesses, markExpected, rankAbsent } from '../../../src/experts/prediction/choose-guesses.js';
import { Confidence } from '../../../src/experts/prediction/confidence.js';
import { IdleTime } from '../../../src/experts/prediction/idle-time.js';
import { PairStatistics } from '../../../src/experts/prediction/pair-statistics.js';

/** After steps in which reads on a guess had `windowMs` and an expert that was not there was waited for `readMs`. */
function idleOf(windowMs: number, readMs: number): IdleTime {
  const idle = new IdleTime();
  for (let step = 0; step < 3; ++step) {
    idle.observe(windowMs, false);
    idle.end(5 * readMs, 5);
  }
  return idle;
}

describe('IdleTime', () => {
  it.each([
    [3, 1, [0, 0, 0, 2]],
    [1, 1, [0, 2, 2, 2]],
    [1.5, 1, [0, 0.5, 2, 2]],
    // A tenth of a read is saved at most: worth it where nine of ten guesses are right.
    [0.2, 2, [0.9, 2, 2, 2]],
  ])('IdleTime.least() of %d ms, a read taking %d', (windowMs, readMs, expected) => {
    const idle = idleOf(windowMs, readMs);
    expected.forEach((least, at) => {
      expect(idle.least(at)).toBeCloseTo(least, 12);
    });
  });

  it('IdleTime.least() asks for nothing before the first miss', () => {
    const idle = new IdleTime();
    idle.observe(1, false);
    idle.end(0, 0);
    expect(idle.least(3)).toBe(0);
  });

  it('IdleTime.end() counts what a right guess was read of before its router had spoken', () => {
    const idle = new IdleTime();
    // Two layers with one miss each, on its way for 1 ms and waited for during 1 ms more.
    idle.observe(1, true);
    idle.observe(1, true);
    idle.end(2, 2);
    expect(idle.least(0)).toBe(0.5);
  });
});

describe('markExpected()', () => {
  it('markExpected() keeps the guesses and twice as many as will be chosen', () => {
    const scores = Float32Array.of(0, 7, 1, 6, 5, 3, 4, 2);
    const guesses = rankAbsent(scores, 2, (expert) => expert === 0 || expert === 3, createGuesses(2, 8));
    const isExpected = new Uint8Array(8).fill(9);
    markExpected(scores, 2, guesses, 1, isExpected);
    expect(Array.from(isExpected)).toEqual([0, 1, 0, 1, 1, 0, 1, 0]);
    markExpected(scores, 2, guesses, 2, isExpected);
    expect(Array.from(isExpected)).toEqual([1, 1, 0, 1, 1, 0, 1, 0]);
  });
});

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
    const count = (idle: IdleTime) => [0.9, 0.5, 0.2].map((least) => believed(guesses, confidence, idle, least));
    expect(count(new IdleTime())).toEqual([1, 2, 3]);
    // A read takes half of the time that there is: the third would not begin.
    expect(count(idleOf(2, 1))).toEqual([1, 2, 2]);
    // It takes 1.67 times as long: the first has to be right four times in ten, the second would not begin.
    expect(count(idleOf(1.5, 2.5))).toEqual([1, 1, 1]);
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
