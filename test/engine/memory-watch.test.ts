import { describe, expect, it } from 'vitest';
import { MemoryWatch, type Pressure } from '../../src/engine/memory-watch.js';

const MIB = 1 << 20;
const BUDGET = 1024 * MIB;
const CALM: Pressure = {
  limitBytes: Number.POSITIVE_INFINITY,
  availableBytes: 8192 * MIB,
  totalBytes: 16_384 * MIB,
  stalledShare: 0,
  majorFaults: 0,
};

describe('MemoryWatch', () => {
  const after = (...readings: readonly Partial<Pressure>[]) => {
    const watch = new MemoryWatch();
    return readings.map((reading) => watch.read({ ...CALM, ...reading }, BUDGET, 0.5)).at(-1);
  };

  it.each<[string, Partial<Pressure>[], number, string | null]>([
    ['leaves the budget alone when nothing is short', [{}], 1024, null],
    ['when the limit is the budget', [{ limitBytes: BUDGET }], 1024, null],
    ['follows a limit below it, less three per cent', [{ limitBytes: 800 * MIB }], 776, 'a control group leaves less'],
    ['gives what the machine lacks', [{ availableBytes: 156 * MIB }], 924, 'the machine runs short of memory'],
    ['bears stalls that are not its own', [{ stalledShare: 0.5 }], 1024, null],
    ['bears the faults of a start', [{ majorFaults: 9000 }, { stalledShare: 0, majorFaults: 9500 }], 1024, null],
    [
      'gives a share at each reading in which its own pages come back from disk',
      [{ stalledShare: 0.2 }, { stalledShare: 0.2, majorFaults: 500 }, { stalledShare: 0.2, majorFaults: 900 }],
      960,
      'pages of this process are read back from disk',
    ],
    ['does not grow back at once', [{ limitBytes: 800 * MIB }, {}, {}], 776, 'a control group leaves less'],
    [
      'grows back a share at a time',
      [{ limitBytes: 800 * MIB }, ...Array<object>(11).fill({})],
      840,
      'a control group leaves less',
    ],
    ['grows back to the budget', [{ limitBytes: 800 * MIB }, ...Array<object>(30).fill({})], 1024, null],
    [
      'grows no further than the machine has room',
      [{ availableBytes: 0 }, ...Array<object>(30).fill({ availableBytes: 500 * MIB })],
      768,
      'the machine runs short of memory',
    ],
  ])('%s', (_, readings, allowedMib, reason) => {
    const { allowedBytes, reason: found } = after(...readings)!;
    expect(Math.round(allowedBytes / MIB)).toBe(allowedMib);
    expect(found).toBe(reason);
  });
});
