import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startEngine } from '../../src/engine/client.js';
import { type EngineConfig, GREEDY } from '../../src/engine/types.js';
import type { Architecture } from '../../src/model/manifest.js';
import { openMoe } from '../../src/model/read-moe.js';
import { writeSynthetic } from '../../src/model/synthetic/write-synthetic.js';

/** Small, with every part a real model has: grouped heads, layers with and without experts, a shared expert. */
const ARCHITECTURE: Architecture = {
  family: 'qwen2_moe',
  hiddenSize: 64,
  layerCount: 4,
  headCount: 4,
  kvHeadCount: 2,
  headDim: 32,
  vocabSize: 512,
  contextLength: 512,
  ropeTheta: 10_000,
  rmsNormEps: 1e-6,
  qkNorm: 'none',
  attentionBias: true,
  tiedEmbeddings: false,
  expertCount: 12,
  topK: 3,
  expertSize: 64,
  normTopK: true,
  sharedExpertSize: 64,
  sharedExpertGate: true,
  denseFfnSize: 96,
  layerKinds: ['moe', 'dense', 'moe', 'moe'],
  slidingWindow: null,
};

let directory: string;
let modelPath: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-engine-'));
  modelPath = join(directory, 'small.moe');
  writeSynthetic({ name: 'small', architecture: ARCHITECTURE, bitsStored: 8, seed: 5, out: modelPath });
});
afterAll(() => rmSync(directory, { recursive: true }));

const start = (more: Partial<EngineConfig> = {}) =>
  startEngine({
    modelPath,
    budgetBytes: 512 << 20,
    threads: 2,
    isa: null,
    level: 8,
    mode: 'exact',
    meanBits: null,
    targetTps: null,
    contextLength: 256,
    kvType: 'f16',
    chunkTokens: 64,
    maxSequences: 3,
    maxQueued: 8,
    gear: 'auto',
    tokenGapMs: 2000,
    io: { backend: 'automatic', queueDepth: 4, direct: true },
    prefetch: 'auto',
    maxResidentExperts: null,
    routingTrace: null,
    recordTrace: null,
    ...more,
  });

const prompt = (seed: number) => Array.from({ length: 20 + seed * 9 }, (_, i) => (i * 37 * seed + 11 * seed) % 512);

/** Tokens of three answers made at once, and what the engine counted. */
async function answers(more: Partial<EngineConfig> = {}) {
  const engine = await start(more);
  const tokensOf = async (seed: number): Promise<number[]> => {
    const tokens: number[] = [];
    const request = { promptIds: prompt(seed), maxTokens: 12, stopTokenIds: [], sampling: GREEDY };
    for await (const event of engine.generate(request)) if (event.kind === 'token') tokens.push(event.tokenId);
    return tokens;
  };
  try {
    const results = await Promise.allSettled([1, 2, 3].map(tokensOf));
    return { results, metrics: await engine.metrics(), info: engine.info };
  } finally {
    await engine.close();
  }
}

const tokensIn = (results: readonly PromiseSettledResult<number[]>[]): number[][] =>
  results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });

describe('startEngine()', () => {
  it('gives the same tokens whatever slots, threads, chunk, I/O and company', async () => {
    const whole = await answers();
    const wanted = tokensIn(whole.results);
    expect(wanted.every((tokens) => tokens.length === 12)).toBe(true);
    expect(whole.info).toMatchObject({ modelName: 'small', level: 8, contextLength: 256, vocabSize: 512 });
    expect(whole.info.memory.residentExperts).toBe(36);
    const io = { backend: 'automatic', queueDepth: 4, direct: true } as const;
    const variants: Partial<EngineConfig>[] = [
      { maxResidentExperts: 18 },
      { maxResidentExperts: 6, chunkTokens: 16 },
      { maxResidentExperts: 1, threads: 1 },
      { chunkTokens: 1, maxSequences: 1 },
      { maxResidentExperts: 9, io: { ...io, backend: 'pread', queueDepth: 1 } },
      { maxResidentExperts: 9, io: { ...io, direct: false } },
      { isa: 'scalar', maxResidentExperts: 12 },
    ];
    for (const variant of variants) {
      const { results, metrics } = await answers(variant);
      expect({ variant, tokens: tokensIn(results) }).toEqual({ variant, tokens: wanted });
      expect(metrics.bytesRead).toBe(metrics.missedBytes + metrics.prefetch.bytes);
      if (variant.maxResidentExperts !== undefined) expect(metrics.bytesRead).toBeGreaterThan(whole.metrics.bytesRead);
    }
  });

  it('gives the same tokens in mode routed whatever slots there are', async () => {
    const wanted = tokensIn((await answers({ mode: 'routed', level: 4 })).results);
    const { results, metrics } = await answers({ mode: 'routed', level: 4, maxResidentExperts: 5 });
    expect(tokensIn(results)).toEqual(wanted);
    expect(metrics.bytesRead).toBe(metrics.missedBytes + metrics.prefetch.bytes);
  });

  it('evaluates to the logits that generation follows', async () => {
    const engine = await start({ maxResidentExperts: 8, chunkTokens: 16 });
    const tokens: number[] = [];
    const request = { promptIds: prompt(1), maxTokens: 5, stopTokenIds: [], sampling: GREEDY };
    for await (const event of engine.generate(request)) if (event.kind === 'token') tokens.push(event.tokenId);
    const logits = await engine.evaluate([...prompt(1), ...tokens]);
    for (const [i, token] of tokens.entries()) {
      const row = logits.subarray((prompt(1).length - 1 + i) * 512, (prompt(1).length + i) * 512);
      expect(row.indexOf(Math.max(...row))).toBe(token);
    }
    await engine.close();
  });

  it('ends a request on a read error or a damaged plane and serves the next', async () => {
    const model = await openMoe(modelPath);
    const damaged = join(directory, 'damaged.moe');
    writeSynthetic({ name: 'small', architecture: ARCHITECTURE, bitsStored: 8, seed: 5, out: damaged });
    const bytes = readFileSync(model.expertsPath);
    // One bit of the last byte of every expert of layer 2: in their residual planes.
    for (let expert = 0; expert < 12; ++expert) {
      const end = model.expertOffset(2, expert) + model.manifest.geometry.recordBytes;
      bytes[end - 1] = bytes[end - 1]! ^ 1;
    }
    writeFileSync(join(damaged, 'experts.bin'), bytes);
    const begin = model.expertOffset(2, 0);
    const variants = [
      {
        config: { faultRanges: [[begin, begin + 12 * model.manifest.geometry.recordBytes]] as const },
        errorName: 'EIO',
      },
      { config: { modelPath: damaged }, errorName: 'EBADMSG' },
    ];
    for (const { config, errorName } of variants) {
      const { results, metrics } = await answers(config);
      for (const result of results) {
        expect(result).toMatchObject({
          status: 'rejected',
          reason: { code: 'EXPERT_READ_FAILED', details: { layer: 2, errorName } },
        });
      }
      expect(metrics).toMatchObject({ sequencesOpen: 0, kvBlocksUsed: 0 });
      expect(metrics.readErrors).toBeGreaterThan(0);
    }
    // Level 4 does not read the damaged plane.
    expect(tokensIn((await answers({ modelPath: damaged, level: 4 })).results)).toHaveLength(3);
  });

  it('refuses a budget below the floor, a model that is not there and a level it lacks', async () => {
    await expect(start({ budgetBytes: 10 << 20 })).rejects.toMatchObject({
      code: 'BUDGET_BELOW_FLOOR',
      details: { budgetBytes: 10 << 20, floorBytes: expect.any(Number) },
    });
    await expect(start({ modelPath: join(directory, 'none.moe') })).rejects.toMatchObject({ code: 'MODEL_INVALID' });
    await expect(start({ contextLength: 513 })).rejects.toMatchObject({ code: 'INVALID_CONFIG' });
  });
});
