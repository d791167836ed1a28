import { describe, expect, it } from 'vitest';
import { duration, progressLine } from '../../src/cli/progress-line.js';

function plainStream(): { stream: NodeJS.WriteStream; text: () => string } {
  let text = '';
  const stream = { isTTY: false, write: (piece: string) => (text += piece) } as unknown as NodeJS.WriteStream;
  return { stream, text: () => text };
}

describe('progressLine()', () => {
  it('prints a line every ten seconds and one at the end when the stream is no terminal', () => {
    const { stream, text } = plainStream();
    let now = 0;
    const line = progressLine(stream, 'weights', () => now);
    for (; now <= 25_000; now += 1000) line.update('experts', now * 1000, 25_000_000);
    line.update('experts', 25_000_000, 25_000_000);
    line.stop();
    expect(text().split('\n')).toEqual([
      'experts: 40 %, 10.0 of 25.0 M weights, 1.0 M/s, 15 s left',
      'experts: 80 %, 20.0 of 25.0 M weights, 1.0 M/s, 5 s left',
      'experts: 100 %, 25.0 of 25.0 M weights, 1.0 M/s, 0 s left',
      '',
    ]);
  });

  it('counts one by one when there are less than a million', () => {
    const { stream, text } = plainStream();
    let now = 0;
    const line = progressLine(stream, 'tokens', () => now);
    now = 10_000;
    line.update('calibration', 500, 2000);
    expect(text()).toBe('calibration: 25 %, 500 of 2000 tokens, 50/s, 30 s left\n');
  });

  it('leaves what an earlier run did out of the rate', () => {
    const { stream, text } = plainStream();
    let now = 0;
    const line = progressLine(stream, 'weights', () => now);
    now = 20_000;
    line.update('experts', 60_000_000, 100_000_000, 40_000_000);
    expect(text()).toBe('experts: 60 %, 60.0 of 100 M weights, 1.0 M/s, 40 s left\n');
  });
});

describe('duration()', () => {
  it.each([
    [0.2, '0 s'],
    [59.4, '59 s'],
    [60, '1 min 0 s'],
    [3725, '1 h 2 min'],
  ])('says %f seconds as %s', (seconds, text) => {
    expect(duration(seconds)).toBe(text);
  });
});
