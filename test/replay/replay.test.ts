/** Hit rates of the replay against the tables of the recorded traces where they are there, and against arguments where not. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { Recording } from '../../src/experts/trace.js';
import { eventStallMs } from '../../src/replay/machine-model.js';
import { openTrace } from '../../src/replay/open-trace.js';
import { plotReplay } from '../../src/replay/plot.js';
import { parsePolicy } from '../../src/replay/policies.js';
import { runReplay } from '../../src/replay/run-replay.js';
import type { ReplayRow, Scope, TraceToReplay } from '../../src/replay/types.js';
import { MACHINE } from './machine.js';

const TRACES = fileURLToPath(new URL('../../../shared/traces/', import.meta.url));

function replay(
  trace: TraceToReplay,
  policies: string[],
  residencies: number[],
  scope: Scope | null = null,
): ReplayRow[] {
  return runReplay({ traces: [trace], policies, residencies, scope, counting: null, machine: MACHINE });
}

/** Seeded: each token repeats an expert of the one before with probability `stay`, else draws one, low ids more often. */
function synthetic(name: string, tokens: number, stay: number, skew: number, seed = 1): TraceToReplay {
  const [layers, experts, topK] = [6, 32, 4];
  let state = seed;
  const draw = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const ids = new Uint16Array(tokens * layers * topK);
  for (let event = 0; event < tokens * layers; ++event) {
    const chosen = new Set<number>();
    for (let rank = 0; rank < topK; ++rank) {
      const earlier = event < layers ? -1 : ids[(event - layers) * topK + rank]!;
      if (earlier >= 0 && draw() < stay) chosen.add(earlier);
    }
    while (chosen.size < topK) chosen.add(Math.floor(experts * draw() ** skew));
    ids.set([...chosen], event * topK);
  }
  const recording: Recording = { tokens, layers, topK, ids, weights: null, isRanked: true };
  return { name, recording, experts };
}

/** Tables of ../shared/traces/README.md: second half (whole trace), in percent. */
const README: readonly (readonly [
  file: string,
  scope: Scope,
  policy: string,
  rates: Readonly<Record<number, readonly [number, number]>>,
])[] = [
  [
    'olmoe-1b-7b-299tok.jsonl',
    'global',
    'lru',
    { 3: [0, 0], 6: [0, 0], 10: [0, 0], 12.5: [33.9, 31.9], 25: [60.7, 56.5], 50: [84.2, 78.4], 75: [95.4, 93.6] },
  ],
  [
    'olmoe-1b-7b-299tok.jsonl',
    'global',
    'lfu',
    {
      3: [14.6, 14.7],
      6: [24.1, 23.2],
      10: [30.8, 30.9],
      12.5: [34.7, 35.6],
      25: [51, 53.2],
      50: [75, 77.4],
      75: [93.2, 93.1],
    },
  ],
  [
    'olmoe-1b-7b-299tok.jsonl',
    'global',
    'lfu-decay',
    {
      3: [16.3, 15.4],
      6: [29.1, 25.4],
      10: [39.4, 34.4],
      12.5: [44.2, 39.3],
      25: [62, 57.4],
      50: [84.7, 81.2],
      75: [95.6, 94],
    },
  ],
  [
    'olmoe-1b-7b-299tok.jsonl',
    'global',
    'lfu-decay:32',
    {
      3: [17.1, 16],
      6: [28.4, 25.3],
      10: [38, 34.5],
      12.5: [42.5, 39.4],
      25: [59.6, 57.3],
      50: [81.7, 80.7],
      75: [95.5, 94.3],
    },
  ],
  [
    'olmoe-1b-7b-299tok.jsonl',
    'global',
    'belady',
    {
      3: [23.3, 23],
      6: [41.7, 39.9],
      10: [56.8, 54.2],
      12.5: [63.2, 60.3],
      25: [80.4, 76.7],
      50: [93.9, 91.3],
      75: [98.4, 96.6],
    },
  ],
  [
    'olmoe-1b-7b-299tok.jsonl',
    'layer',
    'lru',
    {
      3: [0, 0],
      6: [0.1, 0.1],
      10: [3.2, 2.9],
      12.5: [33.9, 31.9],
      25: [61.3, 57.1],
      50: [82.8, 78.1],
      75: [94.8, 93.1],
    },
  ],
  [
    'olmoe-1b-7b-299tok.jsonl',
    'layer',
    'lfu-decay',
    {
      3: [8.6, 8.3],
      6: [24.8, 22.1],
      10: [34.6, 30.3],
      12.5: [41.6, 37.2],
      25: [61.3, 56.8],
      50: [83.6, 80.6],
      75: [94.9, 93.3],
    },
  ],
  [
    'olmoe-1b-7b-299tok.jsonl',
    'layer',
    'belady',
    {
      3: [22.2, 21.5],
      6: [39.9, 38.1],
      10: [52.4, 49.8],
      12.5: [61, 58],
      25: [78.8, 75.2],
      50: [92.7, 90.3],
      75: [98.1, 96.2],
    },
  ],
  [
    'kimi-linear-300tok.jsonl',
    'global',
    'lru',
    {
      3: [0, 0],
      6: [40.6, 41.3],
      10: [52.4, 54.2],
      12.5: [55.5, 57.6],
      25: [73.1, 73],
      50: [89.7, 87.1],
      75: [97.5, 91.8],
    },
  ],
  [
    'kimi-linear-300tok.jsonl',
    'global',
    'lfu-decay',
    {
      3: [31.1, 31.9],
      6: [42.7, 44],
      10: [52.4, 53.9],
      12.5: [57.9, 59.1],
      25: [73.4, 73.5],
      50: [89.6, 87.1],
      75: [97.5, 91.8],
    },
  ],
  [
    'kimi-linear-300tok.jsonl',
    'global',
    'belady',
    {
      3: [50.9, 51.2],
      6: [62.8, 63.6],
      10: [71.5, 71.7],
      12.5: [75.5, 75.3],
      25: [87, 85],
      50: [96.2, 91.2],
      75: [97.5, 91.9],
    },
  ],
  [
    'kimi-linear-300tok.jsonl',
    'layer',
    'lru',
    {
      3: [23.3, 23.4],
      6: [40.3, 41],
      10: [52.4, 54.3],
      12.5: [55.6, 57.6],
      25: [72.6, 72.5],
      50: [89, 86.6],
      75: [97.1, 91.7],
    },
  ],
  [
    'kimi-linear-300tok.jsonl',
    'layer',
    'lfu-decay',
    {
      3: [29.9, 30.7],
      6: [41.2, 42.6],
      10: [52.6, 54.2],
      12.5: [57.8, 59],
      25: [73.2, 73.2],
      50: [89.2, 86.7],
      75: [97.1, 91.7],
    },
  ],
  [
    'kimi-linear-300tok.jsonl',
    'layer',
    'belady',
    {
      3: [49.3, 49.8],
      6: [60.9, 61.7],
      10: [70.7, 71],
      12.5: [74.6, 74.4],
      25: [86.4, 84.5],
      50: [95.9, 91],
      75: [97.5, 91.9],
    },
  ],
];

describe.runIf(existsSync(TRACES))('replay of the recorded traces', () => {
  it.each(README)('reproduces the table of %s, %s caches, %s, within a point', (file, scope, policy, rates) => {
    const trace = openTrace(`${TRACES}${file}`, {});
    for (const row of replay(trace, [policy], Object.keys(rates).map(Number), scope)) {
      const [half, whole] = rates[row.residency]!;
      expect(Math.abs(100 * row.hitRateSecondHalf - half), `${row.residency} %, second half`).toBeLessThan(0.6);
      expect(Math.abs(100 * row.hitRate - whole), `${row.residency} %, whole`).toBeLessThan(0.6);
    }
  });

  it('beats LRU and decayed LFU with the shipped policy at an eighth and a quarter of the experts', () => {
    for (const [file, margins] of [
      ['olmoe-1b-7b-299tok.jsonl', [0.025, 0.03]],
      ['kimi-linear-300tok.jsonl', [0.025, 0.01]],
    ] as const) {
      const trace = openTrace(`${TRACES}${file}`, {});
      for (const [index, residency] of [12.5, 25].entries()) {
        const best = Math.max(
          ...(['global', 'layer'] as const)
            .flatMap((scope) =>
              (['access', 'event'] as const).flatMap((counting) =>
                runReplay({
                  traces: [trace],
                  policies: ['lru'],
                  residencies: [residency],
                  scope,
                  counting,
                  machine: MACHINE,
                }),
              ),
            )
            .map((row) => row.hitRate),
        );
        const [shipped, belady] = replay(trace, ['default', 'belady'], [residency], 'global');
        expect(shipped!.hitRate, `${file} ${residency}`).toBeGreaterThan(best + margins[index]!);
        expect(shipped!.hitRate).toBeLessThan(belady!.hitRate);
      }
    }
  });
});

describe('runReplay()', () => {
  it.each([
    ['uniform', 0, 1],
    ['skewed', 0, 3],
    ['persistent', 0.8, 1],
    ['persistent and skewed', 0.5, 2],
  ] as const)('runReplay() keeps the shipped policy between LRU and Belady on a %s trace', (name, stay, skew) => {
    const rows = replay(synthetic(name, 300, stay, skew), ['lru', 'default', 'belady'], [12.5, 25, 50, 75], 'global');
    for (const residency of [12.5, 25, 50, 75]) {
      const rate = (policy: string) =>
        rows.find((row) => row.policy === policy && row.residency === residency)!.hitRate;
      expect(rate('default'), `${residency} %`).toBeGreaterThan(rate('lru') - 0.005);
      expect(rate('belady')).toBeGreaterThanOrEqual(rate('default'));
    }
  });

  it('runReplay() hits everything but first uses where everything fits, whatever the policy', () => {
    const trace = synthetic('small', 40, 0.5, 2);
    const { ids, layers, topK } = trace.recording;
    const firstUses = new Set([...ids].map((id, at) => (Math.floor(at / topK) % layers) * 32 + id)).size;
    const policies = ['lru', 'lfu', 'lfu-decay', 'lfu-decay-layer', 'lfru', 'edgemoe', 'hobbit', 'belady', 'default'];
    for (const row of replay(trace, policies, [100])) {
      expect(row.hitRate, row.policy).toBeCloseTo(1 - firstUses / ids.length, 12);
      expect(row.bytesPerToken).toBeCloseTo((1000 * firstUses) / 40, 9);
    }
  });

  it('runReplay() repeats itself to the last bit', () => {
    const run = () => replay(synthetic('again', 80, 0.5, 2), ['default', 'lfru', 'lru'], [25]);
    expect(run()).toEqual(run());
  });

  it('runReplay() hits nothing with LRU below one token of experts, access by access', () => {
    const trace = synthetic('cliff', 60, 0.9, 1);
    const [row] = runReplay({
      traces: [trace],
      policies: ['lru'],
      residencies: [10],
      scope: 'global',
      counting: 'access',
      machine: MACHINE,
    });
    expect(row!.hitRate).toBeLessThan(0.02);
  });
});

describe('eventStallMs()', () => {
  it.each([
    // 4 experts of .25 ms; a read takes 1 ms at the rate, .5 ms until the first byte.
    [0, 0],
    // Lands at 1.5, the three hits end at .75.
    [1, 0.75],
    // Land at 1.5 and 2.5; compute is free at .5 and 1.75.
    [2, 1.75],
    // The third waits for a free place in the queue: 1.5, 2.5, 4 against .25, 1.75, 2.75.
    [3, 3.25],
  ])('eventStallMs() of %d misses is %d ms', (misses, stallMs) => {
    expect(eventStallMs(misses, 4, MACHINE)).toBeCloseTo(stallMs, 12);
  });
});

describe('parsePolicy()', () => {
  it('parsePolicy() takes a half-life where counts decay and nowhere else', () => {
    expect(parsePolicy('lfu-decay:32')).toMatchObject({ kind: 'cache', halfLife: 32 });
    expect(parsePolicy('default')).toMatchObject({ kind: 'engine' });
    for (const text of ['lru:8', 'lfu-decay:0', 'lfu-decay:x', 'toString', '']) {
      expect(() => parsePolicy(text)).toThrow(`Cannot use --policy "${text}": needed one of lru, lfu,`);
    }
  });
});

describe('plotReplay()', () => {
  it('plotReplay() draws a line for each policy in a panel for each trace, names escaped', () => {
    const svg = plotReplay(replay(synthetic('a<b>&c', 20, 0.5, 2), ['lru', 'belady'], [25, 50]));
    expect(svg.match(/<polyline/g)).toHaveLength(2);
    expect(svg.match(/<circle/g)).toHaveLength(4);
    expect(svg).toContain('a&lt;b&gt;&amp;c');
  });
});
