/**
 * Keeps the one number while the engine runs: the owner of what the budget is and of how it is divided. Between layers,
 * when no expert is in use, it counts slots anew and drops the planes that are worth least; then it moves what is left
 * down and gives memory back, a few milliseconds at a time, so that no token waits for it. Growing is paced likewise.
 */
import { formatBytes, formatBytesUp } from '../bytes.js';
import { MoestroError } from '../errors.js';
import type { Residency } from '../experts/residency.js';
import { planShed } from '../experts/shed.js';
import type { NativeEngine } from '../native/binding.js';
import type { KvBlocks } from './kv-blocks.js';
import { type MemoryShape, type MemoryShare, shareMemory } from './memory-share.js';
import { MemoryWatch, type Pressure } from './memory-watch.js';
import type { MemoryState } from './engine-metrics.js';

export interface KeeperParts {
  readonly native: NativeEngine;
  readonly residency: Residency;
  readonly blocks: KvBlocks;
  readonly shape: MemoryShape;
  /** Ascending, and what a bit of each adds to an answer. */
  readonly levels: readonly number[];
  readonly gains: readonly number[];
  readonly budgetBytes: number;
  /** RSS before the model was loaded. */
  readonly runtimeBytes: number;
  readonly readRss: () => { readonly rssBytes: number };
  readonly readPressure: () => Pressure;
  readonly now: () => number;
  /** The number of slots has changed. */
  readonly onResize: () => void;
  /** KV blocks that open requests cannot do without, and a call to take back those above `KvBlocks.limit`. */
  readonly kvLeast: () => number;
  readonly shedKv: () => void;
}

/** What Node.js may grow by between two readings, and what a process takes beside its own pages. */
const RUNTIME_MARGIN_BYTES = 12 << 20;
const GUARD_SHARE = 1 / 256;
/** Growth of Node.js is noticed in steps, so that slots do not come and go with every collection of its heap. */
const RUNTIME_STEP_BYTES = 4 << 20;
const RSS_EVERY_MS = 100;
const PRESSURE_EVERY_MS = 500;
/** Work of one step at most: tokens come that much later while memory is given back. */
const STEP_WORK_MS = 30;
/** Bytes moved or given back between two looks at the clock: two milliseconds or so. */
const SLICE_BYTES = 16 << 20;
/** The same for memory that is asked of the system, which clears it first, and on a virtual machine may have to find it. */
const GROWN_SLICE_BYTES = 4 << 20;

interface SlotCount {
  readonly bits: number;
  readonly scales: number;
}

/**
 * Slots that may be used at once on the way from `now` to `wanted`: all where there are to be fewer, else those that have
 * memory. An arena that was never full takes its memory as it is written, as at start.
 */
function atOnce(wanted: number, now: number, touched: number): number {
  return wanted <= now || touched < now ? wanted : Math.min(wanted, touched);
}

const guardOf = (budget: number): number => Math.floor(budget * GUARD_SHARE);

export class MemoryKeeper {
  readonly #parts: KeeperParts;
  readonly #watch = new MemoryWatch();
  readonly #moves: Int32Array;
  #configured: number;
  #allowed: number;
  #reason: string | null = null;
  #runtime: number;
  #share: MemoryShare;
  #rssAt = Number.NEGATIVE_INFINITY;
  #pressureAt: number | null = null;
  #workMs = 0;
  /** KV blocks that held memory at the last tick. */
  #touchedAt = -1;
  /** Slots in use lie beyond the limits, or the limits are still below what they are to be. */
  #isMoving = false;
  /** Slots that there are to be. */
  #wanted: SlotCount;
  #countsRuntime = true;
  #resizes = 0;
  #shedPlanes = 0;
  #shedExperts = 0;
  #givenBackBytes = 0;
  #movedBytes = 0;

  constructor(parts: KeeperParts) {
    this.#parts = parts;
    this.#configured = parts.budgetBytes;
    this.#allowed = parts.budgetBytes;
    this.#runtime = parts.runtimeBytes;
    this.#moves = new Int32Array(3 * Math.max(1, Math.floor(SLICE_BYTES / parts.shape.bitBytes)));
    this.#share = this.#shareNow();
    this.#wanted = { bits: parts.residency.bitSlots, scales: parts.residency.scaleSlots };
    this.#apply(true);
  }

  /** New requests have to wait: the memory does not even hold what open ones need. */
  get isShort(): boolean {
    return this.#allowed < this.#share.floorBytes;
  }

  /**
   * The budget from now on. Slots are counted at once; memory follows within steps, see `tick`.
   *
   * @throws {MoestroError} BUDGET_BELOW_FLOOR, and nothing has changed.
   */
  resize(budgetBytes: number): MemoryState {
    const { floorBytes } = this.#shareAt(budgetBytes);
    if (budgetBytes < floorBytes) {
      throw new MoestroError(
        'BUDGET_BELOW_FLOOR',
        `Cannot shrink to ${formatBytes(budgetBytes)}: needed at least ${formatBytesUp(floorBytes)} with what is open now`,
        { budgetBytes, floorBytes },
      );
    }
    this.#configured = budgetBytes;
    this.#allowed = Math.min(this.#allowedNow(), budgetBytes);
    this.#forgetKv();
    this.#divide(true);
    this.#workMs = 0;
    this.work();
    return this.state();
  }

  /** KV blocks that a sequence may come to. */
  get kvAfforded(): number {
    return this.#share.kvAfforded;
  }

  /** Between steps, before sequences are chosen: the only time at which KV blocks may be taken from them. */
  beginStep(): void {
    this.#workMs = 0;
    this.#look(this.#parts.now());
    this.#divide(true);
    this.work();
  }

  /** Within a step: when its sequences have taken their blocks, which may need the memory of slots, and between layers. */
  tick(now = this.#parts.now()): void {
    // A model has dozens of layers, and between most of them nothing that the division goes by has changed.
    const { touched } = this.#parts.blocks;
    if (this.#look(now) || touched !== this.#touchedAt) this.#divide(false);
    this.#touchedAt = touched;
    if (this.#workMs < STEP_WORK_MS) this.work();
  }

  /** Memory that callers hold in this process is no part of the budget: what Node.js takes cannot be told any more. */
  ignoreRuntime(): void {
    this.#countsRuntime = false;
  }

  /** True when it is time again to read what the process takes or how pressed the machine is. */
  #look(now: number): boolean {
    let hasRead = false;
    if (this.#countsRuntime && now - this.#rssAt >= RSS_EVERY_MS) {
      this.#rssAt = now;
      this.#readRuntime();
      hasRead = true;
    }
    if (this.#pressureAt === null || now - this.#pressureAt >= PRESSURE_EVERY_MS) {
      const seconds = this.#pressureAt === null ? PRESSURE_EVERY_MS / 1000 : (now - this.#pressureAt) / 1000;
      this.#pressureAt = now;
      const { allowedBytes, reason } = this.#watch.read(this.#parts.readPressure(), this.#configured, seconds);
      this.#reason = reason;
      if (allowedBytes !== this.#allowed) {
        this.#allowed = allowedBytes;
        this.#forgetKv();
      }
      hasRead = true;
    }
    return hasRead;
  }

  /** Moves, gives back or takes a little; false when nothing is left to do. */
  work(): boolean {
    if (!this.#isMoving) return false;
    const from = this.#parts.now();
    const isLarge = this.#giveBack();
    this.#isMoving = isLarge || this.#grow();
    this.#workMs += this.#parts.now() - from;
    return this.#isMoving;
  }

  state(): MemoryState {
    const { shape, residency, blocks, readRss } = this.#parts;
    const experts = residency.bitSlots * shape.bitBytes + residency.scaleSlots * shape.scaleBytes;
    const kv = Math.min(blocks.touched, blocks.total) * shape.kvBlockBytes;
    const { dense, scratch } = shape;
    const runtime = this.#runtimeCharge(this.#allowed);
    return {
      budgetBytes: this.#configured,
      allowedBytes: this.#allowed,
      reason: this.#reason,
      floorBytes: this.#share.floorBytes,
      rssBytes: readRss().rssBytes,
      isSettled: !this.#isMoving,
      parts: {
        dense,
        kv,
        experts,
        scratch,
        runtime,
        unused: Math.max(0, this.#allowed - dense - kv - experts - scratch - runtime),
      },
      kvBlocks: this.#share.kvBlocks,
      resizes: this.#resizes,
      shedPlanes: this.#shedPlanes,
      shedExperts: this.#shedExperts,
      givenBackBytes: this.#givenBackBytes,
      movedBytes: this.#movedBytes,
    };
  }

  #allowedNow(): number {
    return this.#reason === null ? Number.POSITIVE_INFINITY : this.#allowed;
  }

  #runtimeCharge(budget: number): number {
    return this.#runtime + RUNTIME_MARGIN_BYTES + guardOf(budget);
  }

  #shareAt(budget: number): MemoryShare {
    const { shape, blocks, kvLeast } = this.#parts;
    const usable = budget - guardOf(budget);
    const share = shareMemory(shape, usable, this.#runtime + RUNTIME_MARGIN_BYTES, blocks.touched, kvLeast());
    return { ...share, floorBytes: Math.ceil(share.floorBytes / (1 - GUARD_SHARE)) };
  }

  #shareNow(): MemoryShare {
    return this.#shareAt(this.#allowed);
  }

  /** What Node.js takes is what is resident and nobody else accounts for; it is never counted down. */
  #readRuntime(): void {
    const { shape, residency, blocks, readRss } = this.#parts;
    const { rssBytes } = readRss();
    const ours =
      shape.dense +
      shape.scratch +
      blocks.touched * shape.kvBlockBytes +
      residency.touchedBits * shape.bitBytes +
      residency.touchedScales * shape.scaleBytes;
    const seen = rssBytes - ours;
    if (seen > this.#runtime) this.#runtime = Math.ceil(seen / RUNTIME_STEP_BYTES) * RUNTIME_STEP_BYTES;
  }

  #divide(mayShedKv: boolean): void {
    const { blocks } = this.#parts;
    this.#share = this.#shareNow();
    const { bitSlots, scaleSlots, kvBlocks } = this.#share;
    const isKvRight = kvBlocks === blocks.limit && (!mayShedKv || blocks.used + blocks.idle <= kvBlocks);
    if (isKvRight && bitSlots === this.#wanted.bits && scaleSlots === this.#wanted.scales) return;
    this.#apply(mayShedKv);
  }

  #apply(mayShedKv: boolean): void {
    const { residency, blocks, shedKv, onResize } = this.#parts;
    blocks.limit = this.#share.kvBlocks;
    if (mayShedKv && blocks.used + blocks.idle > blocks.limit) {
      shedKv();
      this.#forgetKv();
      this.#share = this.#shareNow();
    }
    const { bitSlots, scaleSlots } = this.#share;
    this.#shed(residency.usedBits - bitSlots, residency.usedScales - scaleSlots);
    this.#wanted = {
      bits: Math.max(bitSlots, residency.usedBits),
      scales: Math.max(scaleSlots, residency.usedScales),
    };
    const bits = atOnce(this.#wanted.bits, residency.bitSlots, residency.touchedBits);
    const scales = atOnce(this.#wanted.scales, residency.scaleSlots, residency.touchedScales);
    this.#isMoving ||= residency.touchedBits > bits || residency.touchedScales > scales || !this.#isGrown(bits, scales);
    if (bits === residency.bitSlots && scales === residency.scaleSlots) return;
    residency.resize(bits, scales);
    ++this.#resizes;
    onResize();
  }

  #isGrown(bits: number, scales: number): boolean {
    return bits >= this.#wanted.bits && scales >= this.#wanted.scales;
  }

  /** One slice: slots beyond those that have memory get theirs, then may be used. False when there is nothing to take. */
  #grow(): boolean {
    const { native, residency, shape, onResize } = this.#parts;
    const from = { bits: residency.bitSlots, scales: residency.scaleSlots };
    if (this.#isGrown(from.bits, from.scales)) return false;
    const most = Math.max(1, Math.floor(GROWN_SLICE_BYTES / shape.bitBytes));
    // Scales keep step with bits, so that neither waits for the other.
    const share = Math.ceil((most * this.#wanted.scales) / this.#wanted.bits);
    const bits = Math.min(this.#wanted.bits, from.bits + most);
    const scales = Math.min(this.#wanted.scales, from.scales + share);
    try {
      native.populateSlots(from.bits, bits, from.scales, scales);
    } catch (error) {
      if (!(error instanceof MoestroError && error.code === 'OUT_OF_MEMORY')) throw error;
      // The machine has less than it said: what there is will do until the watch hears of it.
      return false;
    }
    residency.populated(bits, scales);
    residency.resize(bits, scales);
    onResize();
    return !this.#isGrown(bits, scales);
  }

  #shed(bits: number, scales: number): void {
    const { residency, levels, gains } = this.#parts;
    if (bits <= 0 && scales <= 0) return;
    const shed = planShed(bits, scales, residency, levels, gains, (key) => residency.isAtRest(key));
    for (const [i, key] of shed.keys.entries()) residency.drop(key, shed.bits[i]!);
    this.#shedPlanes += shed.keys.length;
    this.#shedExperts += shed.freedScales;
  }

  /** One slice: moves planes out of the topmost slots beyond the limits and gives the memory there back. */
  #giveBack(): boolean {
    const { native, residency, shape } = this.#parts;
    const moves = residency.vacate(this.#moves);
    if (moves > 0) native.moveSlots(moves, this.#moves);
    for (let i = 0; i < moves; ++i) this.#movedBytes += this.#moves[3 * i] === 0 ? shape.bitBytes : shape.scaleBytes;
    const [bitFirst, bitEnd, scaleFirst, scaleEnd] = residency.vacant();
    const most = this.#moves.length / 3;
    const bits = Math.max(bitFirst, bitEnd - most);
    const scales = Math.max(scaleFirst, scaleEnd - most);
    if (bits < bitEnd || scales < scaleEnd) {
      native.discardSlots(bits, bitEnd, scales, scaleEnd);
      residency.gaveBack(bits, scales);
      this.#givenBackBytes += (bitEnd - bits) * shape.bitBytes + (scaleEnd - scales) * shape.scaleBytes;
    }
    return residency.touchedBits > residency.bitSlots || residency.touchedScales > residency.scaleSlots;
  }

  /** KV blocks that nobody uses any more hold memory that others can have. */
  #forgetKv(): void {
    const { native, blocks, shape } = this.#parts;
    const [first, end] = blocks.forgetTail();
    if (first === end) return;
    native.discardKv(first, end);
    this.#givenBackBytes += (end - first) * shape.kvBlockBytes;
  }
}
