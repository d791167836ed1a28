import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  KV_BLOCK_TOKENS,
  kvBlockBytes,
  planMemory,
  recordingBytes,
  scratchBytes,
} from '../../src/engine/memory-plan.js';
import type { EngineConfig } from '../../src/engine/types.js';
import type { Architecture, Manifest } from '../../src/model/manifest.js';
import { DEFAULT_TABLES } from '../../src/model/manifest.js';
import { planeGeometry } from '../../src/model/plane-geometry.js';

const MIB = 1 << 20;
const GIB = 1 << 30;

const ARCHITECTURE: Architecture = {
  family: 'olmoe',
  hiddenSize: 2048,
  layerCount: 16,
  headCount: 16,
  kvHeadCount: 16,
  headDim: 128,
  vocabSize: 50_304,
  contextLength: 4096,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  qkNorm: 'full',
  attentionBias: false,
  tiedEmbeddings: false,
  expertCount: 64,
  topK: 8,
  expertSize: 1024,
  normTopK: false,
  sharedExpertSize: 0,
  sharedExpertGate: false,
  denseFfnSize: 0,
  layerKinds: new Array(16).fill('moe'),
  slidingWindow: null,
};

const MANIFEST: Manifest = {
  format: 'moestro',
  version: 1,
  name: 'shape',
  source: 'none',
  architecture: ARCHITECTURE,
  levels: [2, 3, 4],
  defaultLevel: 4,
  tables: DEFAULT_TABLES,
  geometry: planeGeometry(2048, 1024, 4),
  dense: {
    file: 'dense.safetensors',
    bytes: 500 * MIB,
    tensors: { all: { kind: 'q8', rows: 1, cols: 1, offset: 0, bytes: 500 * MIB, crc32c: 0 } },
  },
  experts: { file: 'experts.bin', bytes: 0, checksums: '' },
  tokenizer: { file: 'tokenizer.json', configFile: 'tokenizer_config.json' },
  generation: { eosTokenIds: [], bosTokenId: null, addBos: false },
  calibration: null,
  quality: { relativeError: {} },
};

const CONFIG: EngineConfig = {
  modelPath: '',
  budgetBytes: null,
  threads: 2,
  isa: null,
  level: null,
  mode: 'exact',
  meanBits: null,
  targetTps: null,
  contextLength: null,
  kvType: 'f16',
  chunkTokens: 512,
  maxSequences: 4,
  maxQueued: 16,
  gear: 'auto',
  tokenGapMs: 2000,
  io: { backend: 'automatic', queueDepth: 16, direct: true },
  prefetch: 'auto',
  maxResidentExperts: null,
  routingTrace: null,
  recordTrace: null,
};

const RUNTIME = 130 * MIB;
const EXPERT = 4 * MANIFEST.geometry.bitBytes + MANIFEST.geometry.scaleBytes;
const plan = (budget: number, config: Partial<EngineConfig> = {}) =>
  planMemory(MANIFEST, { ...CONFIG, ...config }, RUNTIME, budget);

describe('planMemory()', () => {
  it('gives all experts slots, and the rest to a longer context, when everything fits', () => {
    const { plan: parts, bitSlots, scaleSlots, level } = plan(8 * GIB);
    expect(parts).toMatchObject({ residentExperts: 1024, expertCount: 1024, contextLength: 4096, chunkTokens: 512 });
    expect([bitSlots, scaleSlots, level]).toEqual([4096, 1024, 4]);
    expect(parts.kvBlocks).toBe((4 * 4096) / KV_BLOCK_TOKENS);
    expect(parts.unused).toBeGreaterThan(GIB);
  });

  it('keeps KV near 15 % of what dense weights leave and halves the chunk when memory is short', () => {
    const { plan: parts } = plan(GIB);
    const left = GIB - parts.dense - parts.runtime;
    expect(parts.kv).toBeLessThan(0.17 * left);
    expect(parts.contextLength).toBeGreaterThanOrEqual(512);
    expect(parts.scratch).toBeLessThan(left / 7);
    expect(parts.chunkTokens).toBeLessThan(512);
    expect(parts.residentExperts).toBeGreaterThan(16);
    expect(parts.unused).toBeLessThan(EXPERT);
  });

  it('refuses a budget below the floor with the floor and its parts, and takes the floor itself', () => {
    let floor = 0;
    try {
      plan(700 * MIB);
    } catch (error) {
      expect(error).toMatchObject({
        code: 'BUDGET_BELOW_FLOOR',
        message: expect.stringMatching(
          /Cannot run "shape" in 700 MiB: needed at least \d+ MiB \(dense weights 500 MiB, /,
        ),
        details: { budgetBytes: 700 * MIB, dense: 500 * MIB, runtime: RUNTIME, experts: 16 * EXPERT },
      });
      floor = (error as { details: { floorBytes: number } }).details.floorBytes;
      // The figure in the message works when it is typed back, as --budget NMiB.
      const named = Number(/needed at least (\d+) MiB/.exec((error as Error).message)?.[1]) * MIB;
      expect(plan(named).plan.residentExperts).toBeGreaterThanOrEqual(16);
      expect(() => plan(named - MIB)).toThrow(expect.objectContaining({ code: 'BUDGET_BELOW_FLOOR' }));
    }
    expect(plan(floor).plan).toMatchObject({ residentExperts: 16, contextLength: 512, chunkTokens: 32, unused: 0 });
    expect(() => plan(floor - 1)).toThrow(expect.objectContaining({ code: 'BUDGET_BELOW_FLOOR' }));
  });

  it('keeps the sum of all parts at the budget and every part at its least, for any budget and settings', () => {
    fc.assert(
      fc.property(
        fc.record({
          budget: fc.integer({ min: 1300, max: 9000 }).map((mib) => mib * MIB + 12_345),
          mode: fc.constantFrom('exact' as const, 'routed' as const),
          level: fc.constantFrom(2 as const, 3 as const, 4 as const, null),
          kvType: fc.constantFrom('f16' as const, 'int8' as const),
          contextLength: fc.constantFrom(null, 16, 100, 4096),
          chunkTokens: fc.constantFrom(1, 16, 100, 512),
          maxSequences: fc.integer({ min: 1, max: 12 }),
          maxResidentExperts: fc.constantFrom(null, 1, 100),
        }),
        ({ budget, ...config }) => {
          const { plan: parts, bitSlots, scaleSlots, level, maxLogitRows } = plan(budget, config);
          const { dense, kv, experts, scratch, runtime, unused } = parts;
          expect(dense + kv + experts + scratch + runtime + unused).toBe(budget);
          expect(unused).toBeGreaterThanOrEqual(0);
          expect(kv).toBe(parts.kvBlocks * kvBlockBytes(ARCHITECTURE, config.kvType));
          expect(parts.kvBlocks * KV_BLOCK_TOKENS).toBeGreaterThanOrEqual(parts.contextLength);
          expect(scratch).toBe(scratchBytes(ARCHITECTURE, parts.chunkTokens, maxLogitRows, parts.contextLength, 2));
          expect(parts.chunkTokens).toBeLessThanOrEqual(config.chunkTokens);
          if (config.contextLength !== null) expect(parts.contextLength).toBe(config.contextLength);
          else expect(parts.contextLength).toBeGreaterThanOrEqual(512);
          expect(bitSlots).toBeLessThanOrEqual(level * Math.min(1024, config.maxResidentExperts ?? 1024));
          expect(scaleSlots).toBeLessThanOrEqual(1024);
          expect(parts.residentExperts).toBeGreaterThanOrEqual(Math.min(16, config.maxResidentExperts ?? 16));
        },
      ),
      { numRuns: 400, seed: 4 },
    );
  });

  it('stays within what the native engine takes when the model claims more and memory would hold it', () => {
    const manifest: Manifest = {
      ...MANIFEST,
      architecture: { ...ARCHITECTURE, contextLength: 1 << 24, layerCount: 1, layerKinds: ['moe'], kvHeadCount: 1 },
    };
    const settings = { ...CONFIG, maxSequences: 16 };
    const { plan: parts } = planMemory(manifest, settings, RUNTIME, 4096 * GIB);
    expect([parts.contextLength, parts.kvBlocks]).toEqual([1 << 22, 1 << 20]);
    expect(() => planMemory(manifest, { ...settings, contextLength: 1 << 23 }, RUNTIME, 4096 * GIB)).toThrow(
      /a context of 8388608 positions: the engine takes at most 4194304/,
    );
  });

  it('takes the buffers of a recording from what slots have, and leaves the chunk as it was', () => {
    for (const budget of [GIB, 2 * GIB]) {
      const { plan: without } = plan(budget);
      const { plan: parts, shape } = plan(budget, { recordTrace: 'chat.moetrace' });
      const bytes = recordingBytes(ARCHITECTURE, parts.chunkTokens, 4);
      expect(bytes).toBeGreaterThanOrEqual(2 << 20);
      expect(parts.chunkTokens).toBe(without.chunkTokens);
      expect(parts.scratch).toBe(scratchBytes(ARCHITECTURE, parts.chunkTokens, 4, parts.contextLength, 2) + bytes);
      expect(shape.scratch).toBe(parts.scratch);
      expect(parts.experts + parts.kv + parts.unused).toBeLessThanOrEqual(
        without.experts + without.kv + without.unused - (2 << 20),
      );
    }
  });

  it('has more scale slots than whole experts in mode routed', () => {
    const exact = plan(2 * GIB);
    const routed = plan(2 * GIB, { mode: 'routed' });
    expect(exact.scaleSlots * 4).toBe(exact.bitSlots);
    expect(routed.scaleSlots).toBeGreaterThan(exact.scaleSlots);
  });

  it('refuses a level the model lacks and a context beyond its own', () => {
    expect(() => plan(GIB, { level: 8 })).toThrow(/at level 8: it has levels 2, 3, 4/);
    expect(() => plan(GIB, { contextLength: 4097 })).toThrow(
      /a context of 4097 positions: the model was made for 4096/,
    );
  });

  it('lets many answers run at once where all experts fit and nobody said how many, few where they are read', () => {
    const auto = { ...CONFIG, maxSequences: null };
    const many = planMemory(MANIFEST, auto, 100 * MIB, 16 * GIB);
    expect(many.plan.residentExperts).toBe(many.plan.expertCount);
    expect(many.plan.maxSequences).toBe(64);
    const few = planMemory(MANIFEST, auto, 100 * MIB, 2 * GIB);
    expect(few.plan.residentExperts).toBeLessThan(few.plan.expertCount);
    expect(few).toEqual(planMemory(MANIFEST, { ...CONFIG, maxSequences: 4 }, 100 * MIB, 2 * GIB));
    // The cache of so many answers never takes what experts need.
    for (let budget = 2 * GIB; budget < 16 * GIB; budget += 100 * MIB) {
      const four = planMemory(MANIFEST, { ...CONFIG, maxSequences: 4 }, 100 * MIB, budget).plan;
      const { plan } = planMemory(MANIFEST, auto, 100 * MIB, budget);
      expect(plan.residentExperts).toBe(four.residentExperts);
      expect(plan.contextLength).toBeGreaterThanOrEqual(four.contextLength);
    }
  });
});
