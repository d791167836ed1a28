import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type InLine, nextInLine } from '../../src/engine/next-in-line.js';

const one = (client: string, rank = 0, generated = 0): InLine => ({ client, rank, generated });

describe('nextInLine()', () => {
  it.each<[string, InLine[], InLine[], number]>([
    ['the first to come', [one('a'), one('a')], [one('a')], 0],
    ['a higher rank', [one('a'), one('b', 1), one('c', -1)], [], 1],
    ['the client with fewer answers running', [one('a'), one('b')], [one('a'), one('a'), one('b')], 1],
    ['the first to come of clients with as many', [one('b'), one('a')], [one('a'), one('b')], 0],
    ['an answer that had begun', [one('b'), one('a', 0, 5)], [one('a')], 1],
    ['rank above all else', [one('a', 0, 5), one('b', 1)], [one('b'), one('b')], 1],
  ])('is %s', (_what, waiting, running, index) => {
    expect(nextInLine(waiting, running)).toBe(index);
  });

  it('gives clients of one rank as many places each as they ask for, but for one', () => {
    const asked = fc.array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(asked, fc.integer({ min: 1, max: 12 }), (clients, places) => {
        const waiting = clients.map((client) => one(client));
        const running: InLine[] = [];
        while (running.length < places && waiting.length > 0) {
          running.push(waiting.splice(nextInLine(waiting, running), 1)[0]!);
        }
        const held = (client: string) => running.filter((each) => each.client === client).length;
        // Nobody who still waits holds two places less than somebody else.
        for (const { client } of waiting) {
          for (const { client: other } of running) expect(held(other) - held(client)).toBeLessThanOrEqual(1);
        }
      }),
      { numRuns: 200, seed: 11 },
    );
  });
});
