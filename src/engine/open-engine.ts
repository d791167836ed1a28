/** From a configuration to an engine that is ready: open, plan the memory, load the dense weights. */
import type { TokenBytes } from '../constrain/program.js';
import { MoestroError } from '../errors.js';
import { lru } from '../experts/eviction/lru.js';
import { precisionModel } from '../experts/precision.js';
import { loadRoutingTrace } from '../experts/trace.js';
import { defaultBudget, keptFiles, memoryLimitBytes, readMachine, readPressure, readRss } from '../machine.js';
import type { Manifest } from '../model/manifest.js';
import { type MoeModel, openMoe } from '../model/read-moe.js';
import { loadAddon, type NativeEngine, type NativeEngineOptions } from '../native/binding.js';
import { Engine } from './engine.js';
import { arenaCapacity } from './engine-parts.js';
import type { EngineSink } from './engine-sink.js';
import type { ForwardModel } from './forward.js';
import { type EngineMemory, KV_BLOCK_TOKENS, planMemory, runtimeBytes } from './memory-plan.js';
import { openPrefixes } from './prefix/open-prefixes.js';
import { keptBlocksMax } from './prefix/prefix-policy.js';
import { openTraceFile } from './trace-recorder.js';
import type { EngineConfig, EngineInfo } from './types.js';

export interface OpenedEngine {
  readonly engine: Engine;
  readonly native: NativeEngine;
  readonly info: EngineInfo;
}

/**
 * @param sink where the engine's events go.
 * @param createNative makes the native half: the addon's, or a scripted one in tests.
 * @param tokenBytes of the vocabulary, for requests with a format.
 * @throws {MoestroError} as `startEngine` says.
 */
export async function openEngine(
  config: EngineConfig,
  sink: EngineSink,
  createNative: (options: NativeEngineOptions) => NativeEngine = createFromAddon,
  tokenBytes?: TokenBytes,
): Promise<OpenedEngine> {
  const model = await openMoe(config.modelPath);
  const { manifest } = model;
  const machine = readMachine();
  const budget = config.budgetBytes ?? defaultBudget(machine.availableBytes);
  const memory = planMemory(manifest, config, runtimeBytes(machine.rssBytes, manifest.architecture.vocabSize), budget);
  const forwardModel = describeModel(model, config, memory);
  const expertCapacity = addressableExperts(memory);
  const native = createNative(nativeOptions(model, config, memory, expertCapacity));
  for (const [name, tensor] of Object.entries(manifest.dense.tensors)) {
    native.loadDense(model.densePath, { name, ...tensor });
  }
  native.ready();
  // Recorded routing goes by the step and not by the tokens, so keys and values are good for their own request only.
  const keepsPrefixes = config.prefix && config.routingTrace === null;
  const prefix = keepsPrefixes ? openPrefixes(config.prefix, manifest, config.kvType, native) : null;
  const files = keptFiles();
  const { residentBytes } = loadAddon();
  const engine = new Engine({
    native,
    model: forwardModel,
    levels: manifest.levels,
    memory,
    mode: config.mode,
    meanBits: config.meanBits,
    targetTps: config.targetTps,
    ...(config.evictsLru === true ? { chooseVictim: lru } : {}),
    ...(config.elasticPrice === undefined ? {} : { elasticPrice: config.elasticPrice }),
    maxSequences: memory.plan.maxSequences,
    prefetch: config.prefetch,
    ...(prefix === null ? {} : { prefix }),
    maxQueued: config.maxQueued,
    gear: config.gear,
    tokenGapMs: config.tokenGapMs,
    ...(tokenBytes === undefined ? {} : { tokenBytes }),
    ...(config.recordTrace === null ? {} : { recordTo: openTraceFile(config.recordTrace) }),
    sink,
    now: () => performance.now(),
    drawSeed: () => Math.floor(Math.random() * 2 ** 53),
    rss: readRss,
    keep: {
      runtimeBytes: machine.rssBytes,
      expertCapacity,
      readPressure: () => readPressure(files),
      readRss: () => ({ rssBytes: residentBytes() || process.memoryUsage.rss() }),
    },
  });
  const io = native.ioStats();
  return {
    engine,
    native,
    info: {
      modelName: manifest.name,
      family: manifest.architecture.family,
      level: memory.level,
      mode: config.mode,
      isa: native.isa,
      threads: native.threads,
      ioBackend: io.backend,
      ioDirect: io.direct,
      contextLength: memory.plan.contextLength,
      hiddenSize: manifest.architecture.hiddenSize,
      vocabSize: manifest.architecture.vocabSize,
      memory: memory.plan,
      prefix: prefix && {
        keptBytesMax: keptBlocksMax(memory.plan.kvBlocks, prefix.blockBytes, prefix.memoryBytes) * prefix.blockBytes,
        directory: prefix.opened?.store.directory ?? null,
        diskBytes: config.prefix?.diskBytes ?? 0,
      },
    },
  };
}

export function createFromAddon(options: NativeEngineOptions): NativeEngine {
  const addon = loadAddon();
  const { detected } = addon.cpuFeatures();
  if (options.isa !== undefined && !detected.includes(options.isa)) {
    const found = `Cannot compute with "${options.isa}" kernels (--isa, MOESTRO_ISA)`;
    throw new MoestroError(
      'INVALID_CONFIG',
      `${found}: this machine has ${detected.join(', ')}; "auto" takes the best`,
      { detected },
    );
  }
  return addon.createEngine(options);
}

function describeModel(model: MoeModel, config: EngineConfig, memory: EngineMemory): ForwardModel {
  const { manifest } = model;
  const { architecture } = manifest;
  const moeLayers: number[] = [];
  for (const [layer, index] of model.moeLayerIndex.entries()) if (index >= 0) moeLayers.push(layer);
  const geometry = { layers: moeLayers.length, experts: architecture.expertCount, topK: architecture.topK };
  return {
    name: manifest.name,
    architecture,
    geometry: manifest.geometry,
    moeLayers,
    expertOffset: model.expertOffset,
    planeCrc: model.planeCrc,
    fullLevel: memory.level,
    precision: precisionModel(
      manifest.levels,
      memory.level,
      manifest.quality.relativeError,
      manifest.precision ?? null,
      architecture,
      moeLayers.length,
    ),
    trace: config.routingTrace === null ? null : loadRoutingTrace(config.routingTrace, geometry),
    isTraceTurned: config.turnsTrace === true,
  };
}

/** No budget is above the memory of the machine, so neither is the arena; addresses alone take no memory. */
function addressableExperts({ shape, level }: EngineMemory): number {
  const expertBytes = level * shape.bitBytes + shape.scaleBytes;
  return Math.min(shape.expertsMax, Math.ceil(memoryLimitBytes() / expertBytes));
}

function nativeOptions(
  model: MoeModel,
  config: EngineConfig,
  memory: EngineMemory,
  expertCapacity: number,
): NativeEngineOptions {
  const { manifest } = model;
  const { plan } = memory;
  const { bitCapacity, scaleCapacity } = arenaCapacity(memory, expertCapacity);
  return {
    architecture: manifest.architecture,
    tables: manifest.tables,
    denseKinds: denseKinds(manifest),
    threads: config.threads,
    ...(config.isa === null ? {} : { isa: config.isa }),
    maxBatchTokens: plan.chunkTokens,
    maxLogitRows: memory.maxLogitRows,
    contextLength: plan.contextLength,
    kv: { type: config.kvType, blockTokens: KV_BLOCK_TOKENS, blocks: plan.kvBlocks },
    arena: {
      bitSlots: bitCapacity,
      bitSlotBytes: manifest.geometry.bitBytes,
      scaleSlots: scaleCapacity,
      scaleSlotBytes: manifest.geometry.scaleBytes,
    },
    io: {
      path: model.expertsPath,
      backend: config.io.backend,
      queueDepth: config.io.queueDepth,
      direct: config.io.direct,
      ...(config.faultRanges === undefined ? {} : { faultRanges: config.faultRanges.flat() }),
    },
  };
}

/** Native memory is laid out before the first tensor is loaded, so kinds are told ahead. */
function denseKinds(manifest: Manifest): Record<string, 'q4' | 'q6' | 'q8'> {
  const kinds: Record<string, 'q4' | 'q6' | 'q8'> = {};
  for (const [name, { kind }] of Object.entries(manifest.dense.tensors)) if (kind !== 'f32') kinds[name] = kind;
  return kinds;
}
