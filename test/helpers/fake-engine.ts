/** An engine over the fake native half: the toy model's shape, its memory, and what its answers were. */

import { crc32 } from 'node:zlib';
import { Engine } from '../../src/engine/engine.js';
import type { EngineSink } from '../../src/engine/engine-sink.js';
import type { ForwardModel } from '../../src/engine/forward.js';
import { KV_BLOCK_TOKENS } from '../../src/engine/memory-plan.js';
import type { Pressure } from '../../src/engine/memory-watch.js';
import { PrefixStore, type PrefixStoreParts } from '../../src/engine/prefix/prefix-store.js';
import type { TraceSink } from '../../src/engine/trace-recorder.js';
import {
  type EngineEvent,
  type GearMode,
  type GenerateRequest,
  GREEDY,
  type Mode,
  type PrefetchMode,
} from '../../src/engine/types.js';
import type { MoestroError } from '../../src/errors.js';
import type { PlanSettings } from '../../src/experts/plan-settings.js';
import { precisionModel } from '../../src/experts/precision.js';
import { type Architecture, DEFAULT_TABLES } from '../../src/model/manifest.js';
import { planeGeometry } from '../../src/model/plane-geometry.js';
import { FakeNativeEngine } from './fake-native-engine.js';

export const TOY_ARCHITECTURE: Architecture = {
  family: 'qwen3_moe',
  hiddenSize: 64,
  layerCount: 4,
  headCount: 2,
  kvHeadCount: 1,
  headDim: 32,
  vocabSize: 97,
  contextLength: 256,
  ropeTheta: 10_000,
  rmsNormEps: 1e-6,
  qkNorm: 'head',
  attentionBias: false,
  tiedEmbeddings: true,
  expertCount: 12,
  topK: 3,
  expertSize: 32,
  normTopK: true,
  sharedExpertSize: 0,
  sharedExpertGate: false,
  denseFfnSize: 64,
  layerKinds: ['dense', 'moe', 'moe', 'moe'],
  slidingWindow: null,
};

export interface FakeEngineOptions {
  /** Whole experts that the slots hold; all when absent. */
  readonly experts?: number;
  readonly extraBitSlots?: number;
  readonly chunkTokens?: number;
  readonly kvBlocks?: number;
  readonly contextLength?: number;
  readonly maxSequences?: number;
  readonly maxQueued?: number;
  readonly gear?: GearMode;
  readonly tokenGapMs?: number;
  readonly maxLogitRows?: number;
  readonly vocabSize?: number;
  readonly mode?: Mode;
  readonly level?: 2 | 3 | 4 | 8;
  readonly seed?: number;
  readonly faultRanges?: readonly number[];
  readonly settings?: PlanSettings;
  /** Recorded routing in place of the router's. */
  readonly trace?: ForwardModel['trace'];
  readonly now?: () => number;
  /** Keeps a budget of so many bytes for experts; `experts` is where they start. */
  readonly keptExpertBytes?: number;
  readonly readPressure?: () => Pressure;
  readonly elasticPrice?: number;
  readonly prefetch?: PrefetchMode;
  /** Keeps prefixes in memory, in half of the KV blocks. */
  readonly keepsPrefixes?: boolean;
  /** Where routing is recorded. */
  readonly recordTo?: TraceSink;
  /** Beside memory, in this folder. */
  readonly prefixStore?: Pick<PrefixStoreParts, 'directory' | 'readAhead' | 'warn'>;
}

/** What the toy model takes beside its experts, whose records are 20 KiB: the keeper's margin, and KV blocks. */
export const TOY_RUNTIME_BYTES = 4 << 20;
export const TOY_KV_BLOCK_BYTES = 4 << 10;
export const CALM: Pressure = {
  limitBytes: Number.POSITIVE_INFINITY,
  availableBytes: 2 ** 33,
  totalBytes: 2 ** 34,
  stalledShare: 0,
  majorFaults: 0,
};
/** The budget in which `expertBytes` are left for experts while `kvBlocks` are in use. */
export const toyBudget = (expertBytes: number, kvBlocks = 0): number =>
  Math.ceil(((TOY_RUNTIME_BYTES + (12 << 20) + kvBlocks * TOY_KV_BLOCK_BYTES + expertBytes) * 256) / 255) + 1;

export interface Outcome {
  readonly events: EngineEvent[];
  readonly tokens: number[];
  error: MoestroError | null;
  logits: Float32Array | null;
}

export const TOY_GEOMETRY = planeGeometry(TOY_ARCHITECTURE.hiddenSize, TOY_ARCHITECTURE.expertSize, 8);
export const TOY_LEVELS = [2, 3, 4, 8];
export const TOY_MOE_LAYERS = [1, 2, 3];

export const toyCrc = (layer: number, expert: number, plane: number): number =>
  Math.imul(layer * 1000 + expert * 10 + plane + 1, 0x9e3779b1) >>> 0;

/** Offset of an expert's record; `layer` is the model's. */
export const toyOffset = (layer: number, expert: number): number =>
  (TOY_MOE_LAYERS.indexOf(layer) * TOY_ARCHITECTURE.expertCount + expert) * TOY_GEOMETRY.recordBytes;

export function fakeEngine(options: FakeEngineOptions = {}, sink?: EngineSink) {
  const architecture = { ...TOY_ARCHITECTURE, vocabSize: options.vocabSize ?? TOY_ARCHITECTURE.vocabSize };
  const level = options.level ?? 4;
  const total = architecture.expertCount * TOY_MOE_LAYERS.length;
  const experts = options.experts ?? total;
  const contextLength = options.contextLength ?? 128;
  const chunkTokens = options.chunkTokens ?? 16;
  const kvBlocks = options.kvBlocks ?? 16;
  const maxLogitRows = options.maxLogitRows ?? 2;
  const bitSlots = experts * level + (options.extraBitSlots ?? 0);
  const isKept = options.keptExpertBytes !== undefined;
  const native = new FakeNativeEngine(
    {
      architecture,
      tables: DEFAULT_TABLES,
      threads: 1,
      maxBatchTokens: chunkTokens,
      maxLogitRows,
      contextLength,
      kv: { type: 'f16', blockTokens: KV_BLOCK_TOKENS, blocks: kvBlocks },
      arena: {
        bitSlots: isKept ? total * level : bitSlots,
        bitSlotBytes: TOY_GEOMETRY.bitBytes,
        scaleSlots: isKept ? total : experts,
        scaleSlotBytes: TOY_GEOMETRY.scaleBytes,
      },
      io: {
        path: 'toy',
        backend: 'pread',
        queueDepth: 4,
        direct: true,
        ...(options.faultRanges === undefined ? {} : { faultRanges: options.faultRanges }),
      },
    },
    {
      seed: options.seed ?? 1,
      recordBytes: TOY_GEOMETRY.recordBytes,
      moeLayers: TOY_MOE_LAYERS,
      planeCrc: toyCrc,
      planeBits: TOY_GEOMETRY.planes.map((plane) => plane.bits),
    },
  );
  const model: ForwardModel = {
    name: 'toy',
    architecture,
    geometry: TOY_GEOMETRY,
    moeLayers: TOY_MOE_LAYERS,
    expertOffset: toyOffset,
    planeCrc: toyCrc,
    fullLevel: level,
    precision: precisionModel(TOY_LEVELS, level, {}, null, architecture, TOY_MOE_LAYERS.length),
    trace: options.trace ?? null,
  };
  const outcomes = new Map<number, Outcome>();
  const outcome = (id: number): Outcome => {
    const found = outcomes.get(id) ?? { events: [], tokens: [], error: null, logits: null };
    outcomes.set(id, found);
    return found;
  };
  const modelKey = '0'.repeat(32);
  const opened =
    options.prefixStore === undefined
      ? null
      : PrefixStore.open({
          ...options.prefixStore,
          shape: { modelKey, blockTokens: KV_BLOCK_TOKENS, kvBytes: 4 * KV_BLOCK_TOKENS },
          diskBytes: 1 << 20,
          dailyBytes: 1 << 20,
          native,
          crc32c: (crc, bytes) => crc32(bytes, crc),
          lockFile: () => true,
          today: () => 1e12,
        });
  let clock = 0;
  const engine = new Engine({
    native,
    model,
    levels: TOY_LEVELS,
    memory: {
      plan: {
        total: isKept ? toyBudget(options.keptExpertBytes) : 1 << 30,
        dense: 0,
        kv: 0,
        experts: 0,
        scratch: 0,
        runtime: 0,
        unused: 0,
        contextLength,
        maxSequences: options.maxSequences ?? 4,
        kvBlocks,
        chunkTokens,
        residentExperts: experts,
        expertCount: total,
      },
      level,
      bitSlots,
      scaleSlots: experts,
      maxLogitRows,
      shape: {
        dense: 0,
        scratch: 0,
        kvBlockBytes: TOY_KV_BLOCK_BYTES,
        kvBlocks,
        kvBlocksMin: 1,
        level,
        meanLevel: level,
        bitBytes: TOY_GEOMETRY.bitBytes,
        scaleBytes: TOY_GEOMETRY.scaleBytes,
        expertsMin: 2 * architecture.topK,
        expertsMax: total,
        expertCount: total,
      },
    },
    mode: options.mode ?? 'exact',
    meanBits: null,
    maxSequences: options.maxSequences ?? 4,
    maxQueued: options.maxQueued ?? 8,
    ...(options.gear === undefined ? {} : { gear: options.gear }),
    ...(options.tokenGapMs === undefined ? {} : { tokenGapMs: options.tokenGapMs }),
    prefetch: options.prefetch ?? 'off',
    ...(options.recordTo === undefined ? {} : { recordTo: options.recordTo }),
    ...(options.keepsPrefixes === true || opened !== null
      ? { prefix: { modelKey, blockBytes: TOY_KV_BLOCK_BYTES, memoryBytes: null, opened } }
      : {}),
    sink: sink ?? {
      event: (id, event) => {
        outcome(id).events.push(event);
        if (event.kind === 'token') outcome(id).tokens.push(event.tokenId);
      },
      failed: (id, error) => {
        outcome(id).error = error;
      },
      evaluated: (id, logits) => {
        outcome(id).logits = logits;
      },
    },
    now: options.now ?? (() => ++clock),
    drawSeed: () => 5,
    rss: () => ({ rssBytes: native.slotBytes, peakRssBytes: 2 }),
    ...(isKept
      ? {
          keep: {
            runtimeBytes: TOY_RUNTIME_BYTES,
            expertCapacity: total,
            readPressure: options.readPressure ?? (() => CALM),
          },
        }
      : {}),
    ...(options.elasticPrice === undefined ? {} : { elasticPrice: options.elasticPrice }),
    ...(options.settings === undefined ? {} : { settings: options.settings }),
  });
  /** Steps until nothing runs, with every rule of residency checked after each. */
  const runAll = (limit = 10_000): void => {
    for (let step = 0; engine.hasWork; ++step) {
      if (step > limit) throw new Error(`no end after ${limit} steps`);
      engine.step();
      engine.residency.checkInvariants();
    }
  };
  return { engine, native, outcome, runAll };
}

/** A greedy request for `maxTokens` tokens after a prompt made from a number. */
export function toyRequest(
  prompt: number,
  length: number,
  maxTokens: number | null,
  more: Partial<GenerateRequest> = {},
) {
  const promptIds = Array.from({ length }, (_, i) => (prompt * 31 + i * i * 7 + i) % TOY_ARCHITECTURE.vocabSize);
  return { promptIds, maxTokens, stopTokenIds: [], sampling: GREEDY, ...more } satisfies GenerateRequest;
}
