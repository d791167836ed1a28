import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  isWorthReading,
  isWorthWaiting,
  keptBlocksMax,
  mayWrite,
  orderRecords,
  writeOn,
} from '../../../src/engine/prefix/prefix-policy.js';

describe('keptBlocksMax()', () => {
  it.each([
    [100, null, 50],
    [1, null, 0],
    [100, 10 << 20, 10],
    [4, 10 << 20, 4],
    [100, 0, 0],
  ])('of %i blocks with %s bytes is %i', (limit, memory, most) => {
    expect(keptBlocksMax(limit, 1 << 20, memory)).toBe(most);
  });
});

describe('isWorthWaiting()', () => {
  it.each([
    [99, 0, 100, true],
    [31, 0, 32, false],
    [32, 0, 33, true],
    [100, 0, 201, false],
    [100, 0, 200, true],
    [100, 90, 101, false],
  ])('for %i tokens in common, %i known, of %i: %s', (common, computed, length, is) => {
    expect(isWorthWaiting(common, computed, length)).toBe(is);
  });
});

describe('isWorthReading()', () => {
  it.each([
    [8, 0, true],
    [7, 0, false],
    [96, 89, false],
    [96, 64, true],
  ])('of %i tokens that are known where memory has %i: %s', (stored, held, is) => {
    expect(isWorthReading(stored, held)).toBe(is);
  });
});

describe('mayWrite()', () => {
  it('writes when nothing runs, and after steps that took much longer than a write', () => {
    expect([mayWrite(null, 500), mayWrite(100, 10), mayWrite(100, 11), mayWrite(5, 0)]).toEqual([
      true,
      true,
      false,
      true,
    ]);
  });
});

describe('writeOn()', () => {
  it('counts up within a day, starts anew on the next, and stops at the cap', () => {
    const first = writeOn({ day: '', bytes: 7 }, 'mon', 40, 100);
    expect(first).toEqual({ day: 'mon', bytes: 40 });
    const second = writeOn(first!, 'mon', 60, 100);
    expect(second).toEqual({ day: 'mon', bytes: 100 });
    expect(writeOn(second!, 'mon', 1, 100)).toBeNull();
    expect(writeOn(second!, 'tue', 1, 100)).toEqual({ day: 'tue', bytes: 1 });
  });
});

describe('orderRecords()', () => {
  it('puts parents after all that goes on from them, and leaves out what cannot be reached', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(20), fc.nat(9), fc.boolean()), { maxLength: 20 }),
        fc.nat(1000),
        (drawn, rotation) => {
          const records = drawn.map(([parent, usedMs, isLost], i) => {
            const other = i === 0 ? -1 : (parent % (i + 1)) - 1;
            return {
              key: `k${i}`,
              parent: other,
              parentKey: other < 0 ? 'root' : `k${other}`,
              usedMs,
              isLost,
              tokens: [],
            };
          });
          const depths: number[] = [];
          const lost: boolean[] = [];
          for (const [i, { parent, isLost }] of records.entries()) {
            depths[i] = parent < 0 ? 0 : depths[parent]! + 1;
            lost[i] = isLost || (parent >= 0 && lost[parent]!);
          }
          const found = records
            .map((record, i) => ({ ...record, depth: depths[i]! }))
            .filter((_, i) => !records[i]!.isLost);
          const turned = found.map((_, i) => found[(i + rotation) % found.length]!);
          const { known, orphans } = orderRecords(turned);
          expect(known.length + orphans.length).toBe(found.length);
          expect(new Set(known.map(({ key }) => key))).toEqual(
            new Set(records.filter((_, i) => !lost[i]).map(({ key }) => key)),
          );
          const place = new Map(known.map(({ key }, i) => [key, i]));
          for (const { key, parentKey } of known) {
            expect(place.get(parentKey) ?? Number.POSITIVE_INFINITY).toBeGreaterThan(place.get(key)!);
          }
        },
      ),
      { numRuns: 200, seed: 3 },
    );
  });

  it('gives up first what was of use longest ago', () => {
    const record = (key: string, usedMs: number) => ({ key, parentKey: 'root', depth: 0, tokens: [1], usedMs });
    const { known } = orderRecords([record('b', 2), record('c', 3), record('a', 1)]);
    expect(known.map(({ key }) => key)).toEqual(['a', 'b', 'c']);
  });
});
