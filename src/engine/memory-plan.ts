/**
 * Where does the memory go? One number, the budget, covers dense weights, KV cache, expert slots, scratch, and Node.js
 * with its heaps; this decides all parts before anything is allocated, or says what the least budget would be.
 */
import { formatBytes, formatBytesUp } from '../bytes.js';
import { MASK_BYTES_PER_TOKEN } from '../constrain/masks.js';
import { MoestroError } from '../errors.js';
import { nextLevel } from '../experts/precision.js';
import { guessShape } from '../experts/recorded-guesses.js';
import type { Architecture, Manifest } from '../model/manifest.js';
import type { KvType, Level } from '../native/binding.js';
import { earlyRouterBytes } from './early-router.js';
import { type MemoryShape, slotsWithin } from './memory-share.js';
import { recorderBytes } from './trace-recorder.js';
import type { EngineConfig, MemoryPlan } from './types.js';

const MIB = 1 << 20;
/** Positions of one KV block: a multiple of 16; longer ones waste more at the end of each sequence. */
export const KV_BLOCK_TOKENS = 32;
/** A context below this does not hold a chat; nothing smaller is chosen unless it is asked for. */
const CONTEXT_MIN = 512;
/** A prefill step of fewer tokens reads most of a layer's experts for little work. */
const CHUNK_MIN = 32;
/** Share of what dense weights and runtime leave that scratch may take before the chunk is halved. */
const SCRATCH_SHARE = 1 / 8;
/** The same for KV: slots speed every token up, a longer context only long chats. */
const KV_SHARE = 0.15;
/** What the native engine takes at most; only budgets far beyond any model of today would allow more. */
const CONTEXT_MAX = 1 << 22;
const KV_BLOCKS_MAX = 1 << 20;
/** Rows of logits computed at once: one pass over the head serves them all. */
const LOGIT_ROWS_MAX = 8;
/**
 * Answers at once where nobody chose: with all experts in memory each one more costs less than the one before, and the next
 * token comes more evenly; where experts are read, each brings misses of its own. 200 clients, the bundled model, two
 * processors: 4 at once 2,500 tok/s, p99 of the gaps between tokens 13 times the median; 16 at once 3,100 and 7; 64 at
 * once 3,200 and 4.
 */
const SEQUENCES_RESIDENT = 64;
const SEQUENCES_READ = 4;

/**
 * What `moestro serve` takes with the bundled model's tokenizer before any weight is loaded: 78 to 86 MiB were seen. A
 * smaller process (bench, eval) counts as much, so that every command names the same floor.
 */
const RUNTIME_BASE_BYTES = 84 * MIB;
/**
 * What Node.js takes beyond that under load: heaps of the two threads, requests, responses, compiled code. 2,000 chats
 * in streams of 16 and 100 completions of 128 tokens added 85 MiB in all, 20 of them KV, slots and scratch touched for
 * the first time.
 */
const RUNTIME_RESERVE_BYTES = 64 * MIB;

/**
 * What formats may take of it for each token of the vocabulary: the trie (13 bytes a node, 3.5 nodes a token in bench/mask-time.ts), its
 * bytes and links, and the masks that are kept.
 */
const FORMAT_BYTES_PER_TOKEN = 48 + 12 + MASK_BYTES_PER_TOKEN;

/** The share of Node.js in the budget, from the RSS of this process with everything loaded but the model. */
export function runtimeBytes(rssBytes: number, vocabSize: number): number {
  return Math.max(rssBytes, RUNTIME_BASE_BYTES) + RUNTIME_RESERVE_BYTES + vocabSize * FORMAT_BYTES_PER_TOKEN;
}

/** The plan and what the native engine needs to know to keep it. */
export interface EngineMemory {
  readonly plan: MemoryPlan;
  readonly level: Level;
  readonly bitSlots: number;
  readonly scaleSlots: number;
  readonly maxLogitRows: number;
  /** What the division goes by while the engine runs, see memory-share.ts. */
  readonly shape: MemoryShape;
}

/**
 * @param runtime what Node.js takes, see {@link runtimeBytes}.
 * @param budgetBytes the configured budget, or what the machine affords.
 * @throws {MoestroError} BUDGET_BELOW_FLOOR with the floor and what each part of it takes; INVALID_CONFIG for a level
 * the model does not have or a context beyond the model's.
 */
export function planMemory(
  manifest: Manifest,
  config: EngineConfig,
  runtime: number,
  budgetBytes: number,
): EngineMemory {
  if (config.maxSequences !== null) return planFor(config.maxSequences, manifest, config, runtime, budgetBytes);
  const few = planFor(SEQUENCES_READ, manifest, config, runtime, budgetBytes);
  if (!holdsAll(few)) return few;
  const many = planFor(SEQUENCES_RESIDENT, manifest, config, runtime, budgetBytes);
  return holdsAll(many) && many.plan.contextLength >= few.plan.contextLength ? many : few;
}

const holdsAll = ({ plan }: EngineMemory): boolean => plan.residentExperts === plan.expertCount;

function planFor(
  maxSequences: number,
  manifest: Manifest,
  config: EngineConfig,
  runtime: number,
  budgetBytes: number,
): EngineMemory {
  const { architecture, geometry } = manifest;
  const level = chooseLevel(manifest, config.level);
  const dense = denseBytes(manifest);
  const expertCount = architecture.expertCount * architecture.layerKinds.filter((kind) => kind === 'moe').length;
  const expertBytes = level * geometry.bitBytes + geometry.scaleBytes;
  const expertsMin = Math.min(expertCount, 2 * architecture.topK);
  const maxLogitRows = Math.min(maxSequences, LOGIT_ROWS_MAX);
  const wanted = contextWanted(architecture, config);
  const perBlock = kvBlockBytes(architecture, config.kvType);
  const chunkMin = Math.min(CHUNK_MIN, config.chunkTokens);
  const computeFor = (chunk: number, context: number) =>
    scratchBytes(architecture, chunk, maxLogitRows, context, config.threads);
  const isRecorded = config.recordTrace !== null;
  const scratchFor = (chunk: number, context: number) =>
    computeFor(chunk, context) + (isRecorded ? recordingBytes(architecture, chunk, maxSequences) : 0);

  const blocksMin = Math.ceil(wanted.least / KV_BLOCK_TOKENS);
  const floorParts = {
    dense,
    runtime,
    scratch: scratchFor(chunkMin, wanted.least),
    kv: blocksMin * perBlock,
    experts: expertsMin * expertBytes,
  };
  const floor = Object.values(floorParts).reduce((sum, bytes) => sum + bytes, 0);
  if (budgetBytes < floor) throw belowFloor(manifest.name, budgetBytes, floor, floorParts, level, expertsMin);

  // Every part beyond its least is taken from what the floor leaves, so that none can push another below its own.
  const above = budgetBytes - floor;
  const free = budgetBytes - dense - runtime;
  let chunkTokens = config.chunkTokens;
  const scratchGrowth = (chunk: number) => scratchFor(chunk, wanted.least) - floorParts.scratch;
  while (
    chunkTokens > chunkMin &&
    (computeFor(chunkTokens, wanted.least) > free * SCRATCH_SHARE || scratchGrowth(chunkTokens) > above)
  ) {
    chunkTokens = Math.max(chunkMin, chunkTokens >> 1);
  }
  const afterChunk = above - scratchGrowth(chunkTokens);

  // A position costs its share of a block, and where it lengthens the context also rotary entries.
  const perPosition = scratchFor(chunkTokens, wanted.least + 16) - scratchFor(chunkTokens, wanted.least);
  const blockCost = perBlock + Math.ceil((perPosition / 16) * KV_BLOCK_TOKENS);
  const blocksMost = Math.min(Math.ceil(wanted.most / KV_BLOCK_TOKENS) * maxSequences, KV_BLOCKS_MAX);
  const spare = afterChunk - (expertCount - expertsMin) * expertBytes;
  const kvBytes = Math.min(afterChunk, Math.max(free * KV_SHARE - floorParts.kv, spare));
  const kvBlocks = Math.max(blocksMin, Math.min(blocksMost, blocksMin + Math.floor(Math.max(0, kvBytes) / blockCost)));
  const contextLength = Math.max(wanted.least, Math.min(wanted.most, kvBlocks * KV_BLOCK_TOKENS));

  const kv = kvBlocks * perBlock;
  const scratch = scratchFor(chunkTokens, contextLength);
  const slotBytes = budgetBytes - dense - runtime - kv - scratch;
  const cap = Math.min(expertCount, config.maxResidentExperts ?? expertCount);
  const slots = slotsWithin(slotBytes, {
    level,
    meanLevel: meanLevel(manifest, config, level),
    ...geometry,
    expertsMax: cap,
    expertCount,
  });
  const experts = slots.bitSlots * geometry.bitBytes + slots.scaleSlots * geometry.scaleBytes;
  return {
    plan: {
      total: budgetBytes,
      dense,
      kv,
      experts,
      scratch,
      runtime,
      unused: slotBytes - experts,
      contextLength,
      maxSequences,
      kvBlocks,
      chunkTokens,
      residentExperts: Math.min(slots.scaleSlots, Math.floor(slots.bitSlots / level)),
      expertCount,
    },
    level,
    ...slots,
    maxLogitRows,
    shape: {
      dense,
      scratch,
      kvBlockBytes: perBlock,
      kvBlocks,
      kvBlocksMin: blocksMin,
      level,
      meanLevel: meanLevel(manifest, config, level),
      bitBytes: geometry.bitBytes,
      scaleBytes: geometry.scaleBytes,
      expertsMin,
      expertsMax: cap,
      expertCount,
    },
  };
}

/** Bytes of one KV block over all layers: keys and values, and a scale each per head and position for int8. */
export function kvBlockBytes(architecture: Architecture, type: KvType): number {
  const perHead = type === 'f16' ? 2 * architecture.headDim : architecture.headDim + 4;
  return architecture.layerCount * 2 * architecture.kvHeadCount * perHead * KV_BLOCK_TOKENS;
}

/**
 * Scratch of the native model (native/layers/model.cc lays it out so), and the logits that come back.
 *
 * @param chunkTokens tokens of one step at most.
 */
export function scratchBytes(
  architecture: Architecture,
  chunkTokens: number,
  maxLogitRows: number,
  contextLength: number,
  threads: number,
): number {
  const { hiddenSize, headCount, kvHeadCount, headDim, expertCount, topK, expertSize, vocabSize } = architecture;
  const qWidth = headCount * headDim;
  const kvWidth = kvHeadCount * headDim;
  const ffn = Math.max(architecture.sharedExpertSize, architecture.denseFfnSize, 32);
  // int8 copies with a float scale and an int32 sum per 32 values.
  const q8 = (cols: number) => cols + cols / 4;
  const perToken =
    4 * (3 * hiddenSize + 2 * qWidth + 2 * kvWidth + expertCount + 2 * ffn + topK * hiddenSize + 2 * expertSize) +
    q8(Math.max(hiddenSize, qWidth)) +
    q8(ffn) +
    q8(expertSize) +
    // ids, weights, levels, assignments and block tables of the step
    topK * 16 +
    64;
  // Activations of the experts that run together in blocks of 16 tokens; there is a block for every 8 tokens.
  const packed = Math.ceil(chunkTokens / 8) * 16 * (q8(hiddenSize) + q8(expertSize));
  const rope = contextLength * headDim * 4;
  return (
    chunkTokens * perToken +
    packed +
    rope +
    threads * attentionBytes(architecture) +
    (maxLogitRows + 1) * vocabSize * 4 +
    64 * 32
  );
}

/** Buffers of `--record-trace`, see trace-recorder.ts, and what its questions to routers take. */
export function recordingBytes(architecture: Architecture, chunkTokens: number, maxSequences: number): number {
  const { layerKinds, expertCount, topK } = architecture;
  const layers = layerKinds.filter((kind) => kind === 'moe').length;
  const shape = { layers, topK, rows: maxSequences, ...guessShape(expertCount, topK) };
  return recorderBytes(shape, chunkTokens) + earlyRouterBytes(expertCount, topK);
}

/**
 * What one thread needs for attention (native/kernels/attention/attention.h): a block of 64 keys and values as floats,
 * then for each query its copy, 64 scores and two states; and six states of a group for sequences that are split.
 */
function attentionBytes({ headCount, kvHeadCount, headDim }: Architecture): number {
  const group = headCount / kvHeadCount;
  const queries = Math.max(1, Math.floor(32 / group)) * group;
  const state = headDim + 32;
  return 4 * (2 * 64 * headDim + queries * (headDim + 64 + 2 * state) + 6 * group * state);
}

/** Dense tensors as native memory holds them: each starts on a cache line. */
function denseBytes(manifest: Manifest): number {
  let bytes = 0;
  for (const tensor of Object.values(manifest.dense.tensors)) bytes += Math.ceil(tensor.bytes / 64) * 64;
  return bytes;
}

function chooseLevel(manifest: Manifest, wanted: Level | null): Level {
  const level = wanted ?? manifest.defaultLevel;
  if (manifest.levels.includes(level)) return level as Level;
  throw new MoestroError(
    'INVALID_CONFIG',
    `Cannot run "${manifest.name}" at level ${level}: it has levels ${manifest.levels.join(', ')}`,
    { level, levels: manifest.levels },
  );
}

/** Positions of one sequence: the fewest that will do and the most that are of use. */
function contextWanted(architecture: Architecture, config: EngineConfig): { least: number; most: number } {
  const own = Math.min(architecture.contextLength, CONTEXT_MAX);
  const asked = config.contextLength;
  if (asked === null) return { least: Math.min(CONTEXT_MIN, own), most: own };
  if (asked > own) {
    const limit = own < architecture.contextLength ? 'the engine takes at most' : 'the model was made for';
    throw new MoestroError('INVALID_CONFIG', `Cannot use a context of ${asked} positions: ${limit} ${own}`, {
      asked,
      model: own,
    });
  }
  return { least: asked, most: asked };
}

/**
 * Bits that an expert holds in the mean. At one fixed level all hold as many. In modes with several levels many hold
 * fewer, so there are scale slots for more of them: as many as experts halfway between the full level and the next need
 * in `routed`, and in `elastic`, which keeps many at few bits, halfway between that next level and the least.
 */
function meanLevel(manifest: Manifest, config: EngineConfig, level: number): number {
  const next = nextLevel(manifest.levels, level);
  if (config.mode === 'exact') return level;
  return config.mode === 'routed' ? (level + next) / 2 : (next + Math.min(...manifest.levels)) / 2;
}

function belowFloor(
  name: string,
  budget: number,
  floor: number,
  parts: Readonly<Record<'dense' | 'runtime' | 'scratch' | 'kv' | 'experts', number>>,
  level: number,
  expertsMin: number,
): MoestroError {
  const list =
    `dense weights ${formatBytes(parts.dense)}, Node.js ${formatBytes(parts.runtime)}, ` +
    `scratch ${formatBytes(parts.scratch)}, KV cache ${formatBytes(parts.kv)}, ` +
    `${expertsMin} experts at ${level} bits ${formatBytes(parts.experts)}`;
  return new MoestroError(
    'BUDGET_BELOW_FLOOR',
    `Cannot run "${name}" in ${formatBytes(budget)}: needed at least ${formatBytesUp(floor)} (${list})`,
    { budgetBytes: budget, floorBytes: floor, ...parts },
  );
}
