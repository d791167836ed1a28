/**
 * Loads the addon and types its whole surface. TypeScript decides, native code does: tensors never cross this border;
 * ids, top-k weights, plans, counters and logits do. Native calls are synchronous and throw a {@link MoestroError}
 * whose code comes unchanged from the C++ `Status`.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { MoestroError } from '../errors.js';
import type { Architecture, PlaneTables } from '../model/manifest.js';

export type Isa = 'scalar' | 'neon' | 'avx2' | 'avx512' | 'avx512vbmi' | 'amx';
export type IoBackend = 'automatic' | 'io_uring' | 'pread';
export type KvType = 'f16' | 'int8';
export type SourceDtype =
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'Q8_0'
  | 'Q4_0'
  | 'Q4_1'
  | 'Q5_0'
  | 'Q5_1'
  | 'Q2_K'
  | 'Q3_K'
  | 'Q4_K'
  | 'Q5_K'
  | 'Q6_K';

/** Levels an expert can run at: a prefix of its planes. */
export type Level = 2 | 3 | 4 | 8;

/** Fixed fields of one group handed to `runExperts`, as Int32Array entries. */
export const GROUP_STRIDE = 16;
/**
 * A group is one expert at one level with the tokens it serves:
 * [0] expert index in its layer, [1] level, [2] ticket to wait for or -1, [3] first entry in `assignments`,
 * [4] number of assignments, [5] scale slot, [6..13] bit slots (unused ones -1), [14] out: 0 done, else errno,
 * [15] out: 1 when it had to wait for its read.
 */
export const GROUP = {
  expert: 0,
  level: 1,
  ticket: 2,
  first: 3,
  count: 4,
  scaleSlot: 5,
  bitSlots: 6,
  error: 14,
  waited: 15,
} as const;

/** Fixed fields of one read handed to `submitReads`, as Int32Array entries. */
export const READ_STRIDE = 20;
/**
 * A read is the contiguous planes of one expert from some plane on, scattered over slots:
 * [0] ticket, [1] priority (0 demand, 1 upgrade, 2 speculation), [2] scale slot or -1 (when the base is resident),
 * [3] number of bit slots, [4..11] bit slots in plane order,
 * [12] number of checks (0..4), then per check: the number of segments it covers (one byte each, little-endian, in
 * [13]), and the CRC-32C values in [14..17] (as signed 32-bit). [18], [19] zero.
 * Its file offset stands in the Float64Array beside it.
 */
export const READ = {
  ticket: 0,
  priority: 1,
  scaleSlot: 2,
  bitSlotCount: 3,
  bitSlots: 4,
  checkCount: 12,
  checkSegments: 13,
  checkCrcs: 14,
} as const;

/** Entries of one completion filled by `takeCompletions`: ticket, errno (0 when it landed), bytes, latency in µs. */
export const COMPLETION_STRIDE = 4;

/**
 * Int32Array entries that `runLayers` fills: [0] first layer that has not ended, [1] 1 when its attention and router have
 * run and it lacks planes of some expert, so that `sharedFfn` is next; [2] experts run, each once a layer.
 */
export const REACHED = { layer: 0, isRouted: 1, experts: 2 } as const;
export const REACHED_STRIDE = 3;

export interface NativeEngineOptions {
  readonly architecture: Architecture;
  readonly tables: PlaneTables;
  /** Dense matrices that are not q8, by their canonical names. */
  readonly denseKinds?: Readonly<Record<string, 'q4' | 'q6' | 'q8'>>;
  /** Threads that compute, the calling one included. */
  readonly threads: number;
  /** Caps the instruction set; the best detected one when absent. */
  readonly isa?: Isa;
  /** Tokens of one step at most: sizes all scratch. */
  readonly maxBatchTokens: number;
  /** Rows of logits one step may ask for. */
  readonly maxLogitRows: number;
  /** Positions of one sequence at most: sizes the rotary tables and the attention scratch. */
  readonly contextLength: number;
  readonly kv: { readonly type: KvType; readonly blockTokens: number; readonly blocks: number };
  /** Addresses of slots: they take memory when they are first written. */
  readonly arena: {
    readonly bitSlots: number;
    readonly bitSlotBytes: number;
    readonly scaleSlots: number;
    readonly scaleSlotBytes: number;
  };
  readonly io: {
    readonly path: string;
    readonly backend: IoBackend;
    readonly queueDepth: number;
    readonly direct: boolean;
    /** Requests go to the kernel in parts of about so many bytes, `queueDepth` of them at a time; 1 MiB when absent. */
    readonly partBytes?: number;
    /** Byte ranges whose reads fail with EIO: fault injection for tests. Flat [begin, end, begin, end, ...]. */
    readonly faultRanges?: readonly number[];
  };
}

export interface DenseTensorSource {
  /** Canonical name, see docs/model-format.md. */
  readonly name: string;
  readonly kind: 'q4' | 'q6' | 'q8' | 'f32';
  readonly rows: number;
  readonly cols: number;
  /** Absolute offset and length in the file. */
  readonly offset: number;
  readonly bytes: number;
  readonly crc32c: number;
}

export interface IoStats {
  readonly backend: string;
  readonly direct: boolean;
  readonly submitted: number;
  readonly completed: number;
  readonly failed: number;
  readonly cancelled: number;
  readonly bytesRead: number;
  readonly shortReads: number;
  readonly waitMs: number;
  readonly inFlight: number;
  readonly queued: number;
  readonly inFlightMax: number;
}

/** One model's native half. Owned by the engine thread; every call is from that thread. */
export interface NativeEngine {
  readonly isa: Isa;
  readonly threads: number;
  /** Reads a tensor of dense.safetensors into native memory, past the page cache, and checks its CRC-32C. */
  loadDense(path: string, tensor: DenseTensorSource): void;
  /** After the last `loadDense`: throws MODEL_INVALID naming the first tensor that is missing or of a wrong shape. */
  ready(): void;

  /**
   * Sets the tokens of this step. tokenIds, positions, sequences: Int32Array [n]; sequences index rows of
   * `blockTables` Int32Array [sequenceCount, blocksPerSequence]. Several tokens of one sequence stand in ascending
   * position. Throws INVALID_ARGUMENT when anything is out of range.
   */
  setBatch(
    tokenIds: Int32Array,
    positions: Int32Array,
    sequences: Int32Array,
    blockTables: Int32Array,
    blocksPerSequence: number,
  ): void;
  /** Token ids to the residual stream. */
  embed(): void;
  /** Norm, q, k, v, rotary, KV store, attention, output projection, residual; then the norm before the FFN. */
  attention(layer: number): void;
  /** Top-k of every token: ids Uint16Array [n, topK], weights Float32Array [n, topK], highest first. */
  route(layer: number, ids: Uint16Array, weights: Float32Array): void;
  /**
   * Logits of the router of `layer`, Float32Array [n, expertCount], over the residual stream as it is: before that layer's
   * attention a forecast of what its router will say. Not between `runExperts` and `finishLayer`.
   */
  predict(layer: number, scores: Float32Array): void;
  /** Queues reads; see {@link READ}. */
  submitReads(count: number, reads: Int32Array, offsets: Float64Array): void;
  /** The shared expert, or the dense FFN of a layer without experts; kept aside until `finishLayer`. */
  sharedFfn(layer: number): void;
  /**
   * Runs groups, those whose planes are there first, then each as its read lands. `assignments` Int32Array holds
   * token * topK + rank; the output of each is kept aside until `finishLayer`, so order never changes results.
   * Fills GROUP.error and GROUP.waited. Returns milliseconds in which compute waited for a read.
   */
  runExperts(layer: number, groupCount: number, groups: Int32Array, assignments: Int32Array): number;
  /** residual += shared + sum over ranks, in rank order, of weights[token * topK + rank] * expert output. */
  finishLayer(layer: number, weights: Float32Array): void;
  /**
   * Layers from `layer` on, each as `attention`, `route`, `sharedFfn`, `runExperts` and `finishLayer` run it, all experts
   * at `level`. Goes on while every expert chosen has so many bits in memory, until a layer ends `spanMs` or more after
   * the call began. No read may be on its way into the slots named.
   *
   * @param residentBits Uint8Array [MoE layers, expertCount]; slots, -1 for none: `scaleSlots` Int32Array
   * [MoE layers, expertCount], `bitSlots` Int32Array [MoE layers, expertCount, 8].
   * @param ids out: Uint16Array [MoE layers, n, topK], `weights` Float32Array likewise: of layers whose router was asked.
   * @param reached out: see {@link REACHED}.
   */
  runLayers(
    layer: number,
    level: number,
    spanMs: number,
    residentBits: Uint8Array,
    scaleSlots: Int32Array,
    bitSlots: Int32Array,
    ids: Uint16Array,
    weights: Float32Array,
    reached: Int32Array,
  ): void;
  /** The residual stream after the final norm, for the given token rows: out Float32Array [rows.length, hiddenSize]. */
  hiddenStates(rows: Int32Array, out: Float32Array): void;
  /** Final norm and head for the given token rows: out Float32Array [rows.length, vocabSize]. */
  logits(rows: Int32Array, out: Float32Array): void;
  /** The highest logit's index, the lower one among equals; 0 when none is above minus infinity. NaN never wins. */
  largestLogit(logits: Float32Array): number;
  /**
   * Indices of the logits that are at least `least`, to `ids` (Int32Array of logits.length or more, apart from logits): in
   * ascending order where they are no more than `most` (0: any number), else the `most` best, best first, lower ones first
   * among equals. Returns how many.
   */
  bestLogits(logits: Float32Array, least: number, most: number, ids: Int32Array): number;

  /** Moves finished reads into `out` (Int32Array, COMPLETION_STRIDE entries each); returns how many. */
  takeCompletions(out: Int32Array): number;
  /** Waits until at least one read has finished or none is left; then as `takeCompletions`. */
  waitCompletions(out: Int32Array): number;
  /**
   * True when some of the read was still queued: it completes with ECANCELED once its parts in flight have landed; a
   * read that is wholly in flight runs on.
   */
  cancelRead(ticket: number): boolean;
  /** Makes a demand read of what is still queued of an upgrade or a speculation. */
  promoteRead(ticket: number): boolean;

  /**
   * While on, `runExperts` adds up products of every expert's inputs, weighted by the squared routing weight: x_i * x_k
   * for the columns k in the block of `width` columns that i is in; width 1 (default) is squares, else a multiple of 32.
   * Costs layerCount * expertCount * (hiddenSize + expertSize) * width floats of memory while on.
   * Throws OUT_OF_MEMORY when they cannot be had; then it is off.
   */
  collectImportance(on: boolean, width?: number): void;
  /** Sums for gate and up [hiddenSize, width] and for down [expertSize, width], and tokens seen. */
  importance(
    layer: number,
    expert: number,
  ): { readonly tokens: number; readonly gateUp: Float32Array; readonly down: Float32Array };

  /** Copies slots of the arena in order: `moves` Int32Array [count, 3] of kind (0 bits, 1 scales), from, to. */
  moveSlots(count: number, moves: Int32Array): void;
  /** Gives slots [first, end) their memory before they are used, so that no read waits for it. Errors: OUT_OF_MEMORY. */
  populateSlots(bitFirst: number, bitEnd: number, scaleFirst: number, scaleEnd: number): void;
  /** Gives the memory of slots [first, end) back to the system; nobody may use them meanwhile. */
  discardSlots(bitFirst: number, bitEnd: number, scaleFirst: number, scaleEnd: number): void;
  /** The same for KV blocks [first, end) of every layer. */
  discardKv(first: number, end: number): void;
  /** Copies all positions of a KV block in every layer. */
  copyKv(from: number, to: number): void;
  /**
   * Writes a KV block of all layers into a new file: `header`, keys and values, and the CRC-32C over both. Throws IO_ERROR,
   * DISK_FULL; nothing stays at `path` then.
   */
  saveKv(block: number, path: string, header: Uint8Array): void;
  /** Reads what `saveKv` wrote, past a header of so many bytes. Throws IO_ERROR; what the block holds is undefined then. */
  loadKv(block: number, path: string, headerBytes: number): void;

  ioStats(): IoStats;
  /** Bytes of live native memory by purpose. */
  memory(): Readonly<Record<string, number>>;
  /** Waits for reads in flight and frees everything; every later call throws ENGINE_CLOSED. */
  close(): void;
}

export interface QuantiseExpertRequest {
  /** Row-major source bytes: gate and up [expertSize, hiddenSize], down [hiddenSize, expertSize]. */
  readonly gate: Uint8Array;
  readonly up: Uint8Array;
  readonly down: Uint8Array;
  readonly gateDtype: SourceDtype;
  readonly upDtype: SourceDtype;
  readonly downDtype: SourceDtype;
  readonly hiddenSize: number;
  readonly expertSize: number;
  readonly tables: PlaneTables;
  /** True to write the residual plane (level 8). */
  readonly residual: boolean;
  /** Codes are chosen for this level alone, without a say of the others: to measure what nesting costs. */
  readonly onlyLevel?: 2 | 3 | 4;
  /**
   * Mean products of inputs: gateUp [hiddenSize, width], down [expertSize, width]. Width 1, mean squares (importance
   * matrix), weighs errors; a multiple of 32 lets errors be fed back within blocks of that many columns.
   */
  readonly importance?: { readonly gateUp: Float32Array; readonly down: Float32Array };
  /** The record: filled from its first byte; its length must be the geometry's record size. */
  readonly out: Uint8Array;
}

export interface NativeAddon {
  cpuFeatures(): { readonly detected: readonly Isa[]; readonly chosen: Isa };
  crc32c(crc: number, bytes: Uint8Array): number;
  /** Resident bytes of this process; 0 where the system does not say. */
  residentBytes(): number;
  createEngine(options: NativeEngineOptions): NativeEngine;
  /**
   * Takes the exclusive lock of an open file; false when somebody else holds it. It ends when the file is closed, be
   * it by the death of the process.
   */
  lockFile(fd: number): boolean;
  /** Source bytes of `count` weights to float32. Throws INVALID_ARGUMENT when lengths do not match. */
  dequantise(dtype: SourceDtype, bytes: Uint8Array, count: number, out: Float32Array): void;
  /**
   * Quantises one expert into a plane record (native/kernels/formats.h).
   * Returns the weighted relative squared error per level, gate, up and down together.
   */
  quantiseExpert(request: QuantiseExpertRequest): {
    readonly relativeError: Readonly<Record<'2' | '3' | '4' | '8', number>>;
  };
  /**
   * Row-major source bytes to a dense matrix of 4, 6 or 8 bits (DenseMatrix of native/kernels/formats.h); out.length is
   * what denseTensorBytes() of src/model/dense-layout.ts says. Throws SOURCE_INVALID for weights beyond its scales.
   */
  quantiseDense(
    dtype: SourceDtype,
    bytes: Uint8Array,
    rows: number,
    cols: number,
    bits: 4 | 6 | 8,
    out: Uint8Array,
  ): void;
  /** The inverse of `quantiseExpert` at a level: for tests and the reference path. Outputs row-major float32. */
  dequantiseExpert(
    record: Uint8Array,
    hiddenSize: number,
    expertSize: number,
    tables: PlaneTables,
    level: Level,
    gate: Float32Array,
    up: Float32Array,
    down: Float32Array,
  ): void;
  /** The inverse of `quantiseDense`. */
  dequantiseDense(blocks: Uint8Array, rows: number, cols: number, bits: 4 | 6 | 8, out: Float32Array): void;
  /** Runs every kernel's check of each variant against scalar; one line per failure, empty when all agree. */
  checkKernels(seed: number): readonly string[];
  /** Runs the checks of pool, arena and read queue (fake, pread, io_uring); one line per failure. */
  checkBase(seed: number, scratchDirectory: string): readonly string[];
}

let addon: NativeAddon | undefined;

/** The addon, loaded once per thread. Throws ADDON_MISSING with the build command when it is not built. */
export function loadAddon(): NativeAddon {
  addon ??= createRequire(import.meta.url)(addonPath()) as NativeAddon;
  return addon;
}

/** The addon's file. Throws as {@link loadAddon}. */
export function addonPath(): string {
  for (const place of ['../../build/cmake/Release/moestro.node', '../../build/Release/moestro.node']) {
    const path = fileURLToPath(new URL(place, import.meta.url));
    if (existsSync(path)) return path;
  }
  throw new MoestroError('ADDON_MISSING', 'Cannot load the native addon: it is not built; run `npm run build:native`');
}
