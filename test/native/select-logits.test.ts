/** The addon's passes over a vocabulary find what the plain ones do, and a sampler draws the same tokens by either. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import { type LogitScan, PLAIN_SCAN } from '../../src/engine/logit-scan.js';
import { Random } from '../../src/engine/random.js';
import { Sampler, SamplerScratch } from '../../src/engine/sampler.js';
import { GREEDY, type Sampling } from '../../src/engine/types.js';
import type { Manifest } from '../../src/model/manifest.js';
import { loadAddon } from '../../src/native/binding.js';

const manifest = JSON.parse(readFileSync(join(BUNDLED_MODEL, 'manifest.json'), 'utf8')) as Manifest;
const native = loadAddon().createEngine({
  architecture: manifest.architecture,
  tables: manifest.tables,
  threads: 1,
  maxBatchTokens: 1,
  maxLogitRows: 1,
  contextLength: 32,
  kv: { type: 'f16', blockTokens: 16, blocks: 2 },
  arena: {
    bitSlots: 8,
    bitSlotBytes: manifest.geometry.bitBytes,
    scaleSlots: 1,
    scaleSlotBytes: manifest.geometry.scaleBytes,
  },
  io: { path: join(BUNDLED_MODEL, 'experts.bin'), backend: 'pread', queueDepth: 1, direct: false },
});
afterAll(() => native.close());

/** Some spread wide, some with many equals, and now and then what is no usual number. */
function makeLogits(length: number, random: Random): Float32Array {
  const steps = random.next() < 0.5 ? 0 : 1 + Math.floor(random.next() * 30);
  const odd = [Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, -0, 0, 3.4e38, -3.4e38];
  const strangeness = random.next() < 0.5 ? 0 : 0.01;
  return Float32Array.from({ length }, () => {
    if (random.next() < strangeness) return odd[Math.floor(random.next() * odd.length)]!;
    const value = (random.next() + random.next() + random.next() - 1.5) * 20;
    return steps === 0 ? value : Math.round(value * steps) / steps;
  });
}

const found = (scan: LogitScan, logits: Float32Array, least: number, most: number): Int32Array => {
  const ids = new Int32Array(logits.length);
  return ids.slice(0, scan.bestLogits(logits, least, most, ids));
};

describe('NativeEngine.bestLogits(), largestLogit()', () => {
  it('find what the plain scan does, around the sizes of vectors and of whole vocabularies', () => {
    const random = new Random(11);
    for (const length of [1, 2, 15, 16, 17, 63, 65, 512, 4095, 4097, 9000, 151_936]) {
      for (let round = 0; round < (length > 10_000 ? 1 : 12); ++round) {
        const logits = makeLogits(length, random);
        const what = `${length} logits, round ${round}`;
        expect(native.largestLogit(logits), what).toBe(PLAIN_SCAN.largestLogit(logits));
        const some = logits[Math.floor(random.next() * length)]!;
        const bounds = [some, -1e300, some + 1e-9, -30, Number.NEGATIVE_INFINITY, Number.NaN, 1e300];
        for (const least of length > 10_000 ? bounds.slice(0, 2) : bounds) {
          for (const most of [0, 1, 40, 300, length, 1 << 24]) {
            const expected = found(PLAIN_SCAN, logits, least, most);
            expect(found(native, logits, least, most), `${what}, ${most} at ${least}`).toEqual(expected);
          }
        }
      }
    }
  });

  it('refuse ids that share memory with the logits they are sorted by', () => {
    const logits = new Float32Array(64);
    const ids = new Int32Array(logits.buffer);
    expect(() => native.bestLogits(logits, 0, 4, ids)).toThrow('apart from logits');
    expect(() => native.bestLogits(logits, 0, 4, new Int32Array(63))).toThrow('at least 64');
  });
});

describe('Sampler over either scan', () => {
  const settings: readonly Partial<Sampling>[] = [
    {},
    { temperature: 0.7, topK: 40, topP: 0.95, minP: 0.05 },
    { temperature: 1 },
    { temperature: 1.3, topP: 0.9 },
    { temperature: 4, topP: 0.999 },
    { temperature: 1, topK: 40, topLogprobs: 5 },
    { temperature: 2, topK: 1000, topP: 0.8, repetitionPenalty: 1.2, frequencyPenalty: 0.3, presencePenalty: 0.1 },
    {
      temperature: 1,
      topK: 3,
      logitBias: [
        [5, 30],
        [6, 30],
        [7, -100],
      ],
    },
  ];

  it.each(settings)('draws the same tokens with %j', (sampling) => {
    const random = new Random(5);
    const bits = Uint32Array.from({ length: 96 }, () => Math.floor(random.next() * 2 ** 32));
    const masks = [
      null,
      { mask: { kind: 'few', ids: Int32Array.of(3, 77, 1200) }, mayEnd: true },
      { mask: { kind: 'many', bits }, mayEnd: false },
    ] as const;
    for (const allowed of masks) {
      const samplers = [PLAIN_SCAN, native].map(
        (scan) => new Sampler({ ...GREEDY, ...sampling, seed: 9 }, 0, new SamplerScratch(3072, scan)),
      );
      for (let draw = 0; draw < 60; ++draw) {
        const logits = makeLogits(3072, random);
        const [plain, other] = samplers.map((sampler) =>
          sampler.sample(logits.slice(), [1, 5, 5, 900], allowed, new Set([2])),
        );
        expect(other).toEqual(plain);
      }
    }
  });

  it('keeps as many tokens as top-p asks for, where those are thousands', () => {
    const logits = Float32Array.from({ length: 20_000 }, (_, id) => -((id * 7919) % 20_000) / 20_000);
    const sampler = new Sampler(
      { ...GREEDY, temperature: 1, topP: 0.5, seed: 3 },
      0,
      new SamplerScratch(20_000, native),
    );
    // Weights e^-x on [0, 1): half of their mass lies below x = -ln(1 - .5 (1 - 1/e)) = .3799.
    const drawn = Array.from({ length: 150 }, () => logits[sampler.sample(logits.slice(), []).tokenId]!);
    expect(Math.min(...drawn)).toBeGreaterThan(-0.381);
    expect(Math.min(...drawn)).toBeLessThan(-0.36);
  });
});
