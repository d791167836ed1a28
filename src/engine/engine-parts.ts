/** What an engine is put together from: the parts that it is given, and those that are made of them at start. */
import type { TokenBytes } from '../constrain/program.js';
import type { ChooseVictim } from '../experts/eviction/choose-victim.js';
import { Likeness } from '../experts/likeness.js';
import { type PlanSettings, planSettings } from '../experts/plan-settings.js';
import { planeGains } from '../experts/precision.js';
import { GUESS_LIMITS } from '../experts/prediction/guess-limits.js';
import { Residency } from '../experts/residency.js';
import type { NativeEngine } from '../native/binding.js';
import { EarlyRouter } from './early-router.js';
import type { EngineSink } from './engine-sink.js';
import { RowFinisher } from './finish-rows.js';
import { Forward, type ForwardModel } from './forward.js';
import { Gears } from './gears.js';
import type { KvBlocks } from './kv-blocks.js';
import { MemoryKeeper } from './memory-keeper.js';
import type { EngineMemory } from './memory-plan.js';
import type { Pressure } from './memory-watch.js';
import type { OpenSequences } from './open-sequences.js';
import type { PrefixCacheParts } from './prefix/prefix-cache.js';
import { TraceRecorder, type TraceSink } from './trace-recorder.js';
import type { GearMode, Mode, PrefetchMode } from './types.js';

export interface EngineParts {
  readonly native: NativeEngine;
  readonly model: ForwardModel;
  readonly levels: readonly number[];
  readonly memory: EngineMemory;
  readonly mode: Mode;
  readonly meanBits: number | null;
  /** What elastic answers are held to, and a price that stands in for the governor's: for measurements. */
  readonly targetTps?: number | null;
  readonly elasticPrice?: number;
  readonly maxSequences: number;
  readonly maxQueued: number;
  /** Which streams share steps (gear-policy.ts), and the longest that one should wait for the turns of others. */
  readonly gear?: GearMode;
  readonly tokenGapMs?: number;
  /** Of the vocabulary, for requests with a format. */
  readonly tokenBytes?: TokenBytes;
  readonly sink: EngineSink;
  readonly prefetch: PrefetchMode;
  /** Keeps KV blocks for later requests; absent, none are. */
  readonly prefix?: Pick<PrefixCacheParts, 'modelKey' | 'blockBytes' | 'memoryBytes' | 'opened'>;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
  /** A seed for requests without one. */
  readonly drawSeed: () => number;
  readonly rss: () => { readonly rssBytes: number; readonly peakRssBytes: number };
  /** Keeps the budget while the engine runs; absent, the plan's slots stay as they are. */
  readonly keep?: {
    /** What the process took before the model was loaded. */
    readonly runtimeBytes: number;
    /** Experts for which there are addresses. */
    readonly expertCapacity: number;
    readonly readPressure: () => Pressure;
    /** Read ten times a second: quicker than `rss` where there is a quicker way. */
    readonly readRss?: () => { readonly rssBytes: number };
  };
  /** Half-life of use counts and the plan's settings, for experiments. */
  readonly halfLife?: number;
  readonly settings?: PlanSettings;
  readonly chooseVictim?: ChooseVictim;
  /** Where routing is written to, if anywhere. */
  readonly recordTo?: TraceSink;
}

/** Readers take in a few words a second: a wait of two seconds is a pause, not an end. */
const TOKEN_GAP_MS = 2000;
/** More streams have turns too short to be of use; 24 KB each on Qwen3-30B's shape. */
const LIKENESS_STREAMS_MAX = 32;

/** Slots for which there are addresses: those of all experts that could ever be resident. */
export function arenaCapacity(
  { level, shape, bitSlots, scaleSlots }: EngineMemory,
  experts: number,
): { readonly bitCapacity: number; readonly scaleCapacity: number } {
  return {
    bitCapacity: Math.max(bitSlots, experts * level),
    scaleCapacity: Math.max(scaleSlots, Math.min(shape.expertCount, Math.ceil((experts * level) / shape.meanLevel))),
  };
}

/** Nothing resident, and the slots of the plan; where the budget is kept, slots to come have addresses already. */
export function createResidency({ model, memory, keep, maxSequences, halfLife }: EngineParts): Residency {
  return new Residency({
    layers: model.moeLayers.length,
    experts: model.architecture.expertCount,
    bitSlots: memory.bitSlots,
    scaleSlots: memory.scaleSlots,
    fullLevel: memory.level,
    ...(keep === undefined ? {} : arenaCapacity(memory, keep.expertCapacity)),
    topK: model.architecture.topK,
    rows: maxSequences,
    ...(halfLife === undefined ? {} : { halfLife }),
  });
}

/** How to plan with the slots that there are now: to be asked again when their number has changed. */
export function settingsNow(parts: EngineParts, residency: Residency): PlanSettings {
  return parts.settings ?? planSettings(residency, parts.levels, parts.model.architecture.topK, parts.chooseVictim);
}

/** The walk through the layers; where routing is to be written down, with its recorder. */
export function createForward(parts: EngineParts, residency: Residency): Forward {
  const { native, model, memory, maxSequences, now, recordTo } = parts;
  const limits = { tokens: memory.plan.chunkTokens, rows: maxSequences };
  const prefetch = {
    confidenceLeast: GUESS_LIMITS.confidenceLeast,
    wasteShare: GUESS_LIMITS.wasteShare,
    mode: parts.prefetch,
    source: model.trace === null ? ('router' as const) : ('statistics' as const),
  };
  const forward = new Forward(native, model, residency, settingsNow(parts, residency), prefetch, limits, now);
  if (recordTo !== undefined) forward.recorder = createRecorder(parts, recordTo);
  return forward;
}

function createRecorder({ native, model, memory, levels, maxSequences }: EngineParts, sink: TraceSink): TraceRecorder {
  const { expertCount, topK } = model.architecture;
  const header = {
    format: 'moestro-routing',
    version: 2,
    model: model.name,
    layers: model.moeLayers.length,
    experts: expertCount,
    topK,
    rows: maxSequences,
    fullLevel: memory.level,
    levels: levels.filter((level) => level <= memory.level),
    bitBytes: model.geometry.bitBytes,
    scaleBytes: model.geometry.scaleBytes,
  } as const;
  // Replayed routing is none that the model's own routers could foretell.
  const early =
    model.trace === null ? new EarlyRouter(expertCount, topK, (layer, scores) => native.predict(layer, scores)) : null;
  return new TraceRecorder(header, memory.plan.chunkTokens, sink, early);
}

/**
 * Null where the plan's slots stay as they are.
 *
 * @param onResize called when the number of slots has changed.
 */
export function createKeeper(
  parts: EngineParts,
  residency: Residency,
  blocks: KvBlocks,
  open: OpenSequences,
  onResize: () => void,
): MemoryKeeper | null {
  const { native, memory, model, keep, levels, mode, now, rss } = parts;
  if (keep === undefined) return null;
  const ascending = levels.filter((level) => level <= memory.level).sort((a, b) => a - b);
  return new MemoryKeeper({
    native,
    residency,
    blocks,
    shape: { ...memory.shape, expertsMax: Math.min(memory.shape.expertsMax, keep.expertCapacity) },
    levels: ascending,
    gains: mode === 'exact' ? ascending.map(() => 1) : planeGains(model.precision),
    budgetBytes: memory.plan.total,
    runtimeBytes: keep.runtimeBytes,
    readRss: keep.readRss ?? rss,
    readPressure: keep.readPressure,
    now,
    onResize,
    kvLeast: () => open.leastBlocks(),
    shedKv: () => open.shedBlocks(),
  });
}

/**
 * A rate that is promised to each answer is held in joint steps: it is one of steps. Where streams may take turns the
 * forward pass counts from now on which of them are alike.
 */
export function createGears(parts: EngineParts, { layers, experts }: Residency, forward: Forward): Gears {
  const { gear = 'auto', targetTps, maxSequences, tokenGapMs = TOKEN_GAP_MS } = parts;
  const mode = gear === 'auto' && typeof targetTps === 'number' ? 'joint' : gear;
  const likeness = new Likeness(layers * experts, Math.min(maxSequences, LIKENESS_STREAMS_MAX));
  if (mode !== 'joint') forward.levels.likeness = likeness;
  return new Gears(mode, tokenGapMs, (first, second) => likeness.of(first, second));
}

/** @param contextLength positions of one sequence at most, asked for each token that is written. */
export function createRowFinisher(parts: EngineParts, open: OpenSequences, contextLength: () => number): RowFinisher {
  const { native, model, memory, sink, now } = parts;
  return new RowFinisher({
    native,
    open,
    sink,
    vocabSize: model.architecture.vocabSize,
    hiddenSize: model.architecture.hiddenSize,
    contextLength,
    chunkTokens: memory.plan.chunkTokens,
    maxLogitRows: memory.maxLogitRows,
    now,
  });
}
