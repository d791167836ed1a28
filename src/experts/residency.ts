/**
 * Who holds which slots: the one owner of all of them. Plans are made elsewhere over the read-only view; slots change
 * hands in `apply`, `speculate`, `makeRoom`, `landed` and nowhere else.
 *
 * An expert is absent, reading (slots taken, a read on its way) or resident with some of its bits. It can be both:
 * resident at 2 bits and reading two more. Expert key = moeLayer * experts + expert; it is also the ticket of the read,
 * as there is at most one on its way for an expert.
 */
import assert from 'node:assert/strict';
import { type LayerPlan, MAX_BITS } from './layer-plan.js';
import { ReuseModel, type ReuseWeights } from './reuse/reuse-model.js';
import { SlotPool } from './slot-pool.js';
import { UseCounts } from './use-counts.js';

export interface ResidencyShape {
  /** MoE layers, experts of each. */
  readonly layers: number;
  readonly experts: number;
  readonly bitSlots: number;
  readonly scaleSlots: number;
  /** Slots that `resize` may come to at most; `bitSlots` and `scaleSlots` when absent. */
  readonly bitCapacity?: number;
  readonly scaleCapacity?: number;
  /** Bits of an expert at the full level: how many slots a whole expert takes. */
  readonly fullLevel: number;
  /** Tokens after which a use counts half. */
  readonly halfLife?: number;
  /** Experts a token uses, and sequences of a step at most: what the reuse model makes room for. */
  readonly topK?: number;
  readonly rows?: number;
  /** Of the reuse model, for fitting them; the shipped ones when absent. */
  readonly reuseWeights?: ReuseWeights;
}

/**
 * Hit rates over recorded decode routing, slots for 12.5 / 25 / 50 % of the experts, half-life 8 against 16 and 32:
 * Qwen3-30B code .725 .878 .972, .726 .882 .973, .723 .882 .974; general .595 .785 .952, .579 .781 .955,
 * .565 .774 .957; OLMoE .425 .610 .831, .422 .606 .831, .413 .598 .824. Short is better where slots are few.
 */
export const DEFAULT_HALF_LIFE = 8;

/** The state at the start of a layer, as plans see it. */
export interface ResidencyView {
  readonly layers: number;
  readonly experts: number;
  readonly bitSlots: number;
  readonly scaleSlots: number;
  readonly fullLevel: number;
  readonly freeBits: number;
  readonly freeScales: number;
  /** Bits that are in slots and landed, and bits there will be once a read on its way lands (0: none is); by key. */
  readonly residentBits: Uint8Array;
  readonly readingBits: Uint8Array;
  /** By key: 1 for what was read on a guess and has not been used; it is the first to lose its slots. */
  readonly onProbation: Uint8Array;
  /** Experts of each layer that hold slots, and the number below which other layers may not push it. */
  readonly layerExperts: Int32Array;
  readonly floors: Int32Array;
  readonly uses: UseCounts;
  readonly reuse: ReuseModel;
}

/** Whole experts that the slots hold at the full level. */
export function expertCapacity(view: Pick<ResidencyView, 'bitSlots' | 'scaleSlots' | 'fullLevel'>): number {
  return Math.min(view.scaleSlots, Math.floor(view.bitSlots / view.fullLevel));
}

/**
 * Experts each layer keeps whatever other layers want: half of an equal share, so that the other half can go where it
 * is used most. Layer 0 routes nearly uniformly and gets half as much again. Below two experts a layer there is
 * nothing to promise: floors are 0 and layers compete.
 */
export function layerFloors(layers: number, experts: number, capacity: number): Int32Array {
  const floor = capacity >= 2 * layers ? Math.floor(capacity / layers / 2) : 0;
  const floors = new Int32Array(layers).fill(Math.min(floor, experts));
  floors[0] = Math.min(experts, Math.ceil(floor * 1.5));
  return floors;
}

export class Residency implements ResidencyView {
  readonly layers: number;
  readonly experts: number;
  readonly fullLevel: number;
  readonly residentBits: Uint8Array;
  readonly readingBits: Uint8Array;
  readonly onProbation: Uint8Array;
  readonly layerExperts: Int32Array;
  readonly floors: Int32Array;
  readonly uses: UseCounts;
  /** Experts that left probation by being evicted, since start. */
  probationEvictions = 0;
  readonly reuse: ReuseModel;
  /** Which slots an expert holds, -1 for none: by key, and by [key][bit]. Written here only. */
  readonly scaleSlotOf: Int32Array;
  readonly bitSlotOf: Int32Array;
  readonly #pinned: Uint8Array;
  readonly #bits: SlotPool;
  readonly #scales: SlotPool;
  #reading = 0;

  constructor(shape: ResidencyShape) {
    const keys = shape.layers * shape.experts;
    this.layers = shape.layers;
    this.experts = shape.experts;
    this.fullLevel = shape.fullLevel;
    this.residentBits = new Uint8Array(keys);
    this.readingBits = new Uint8Array(keys);
    this.onProbation = new Uint8Array(keys);
    this.layerExperts = new Int32Array(shape.layers);
    this.floors = layerFloors(shape.layers, shape.experts, expertCapacity(shape));
    this.reuse = new ReuseModel(
      { layers: shape.layers, experts: shape.experts, topK: shape.topK ?? 1, rows: shape.rows ?? 1 },
      shape.reuseWeights,
    );
    this.uses = new UseCounts(shape.layers, shape.experts, shape.halfLife ?? DEFAULT_HALF_LIFE, this.reuse.worth);
    this.scaleSlotOf = new Int32Array(keys).fill(-1);
    this.bitSlotOf = new Int32Array(keys * MAX_BITS).fill(-1);
    this.#pinned = new Uint8Array(keys);
    this.#bits = new SlotPool(shape.bitCapacity ?? shape.bitSlots, shape.bitSlots);
    this.#scales = new SlotPool(shape.scaleCapacity ?? shape.scaleSlots, shape.scaleSlots);
  }

  get bitSlots(): number {
    return this.#bits.limit;
  }

  get scaleSlots(): number {
    return this.#scales.limit;
  }

  get freeBits(): number {
    return this.#bits.free;
  }

  get freeScales(): number {
    return this.#scales.free;
  }

  /** Reads on their way. */
  get readingCount(): number {
    return this.#reading;
  }

  scaleSlot(key: number): number {
    return this.scaleSlotOf[key]!;
  }

  bitSlot(key: number, bit: number): number {
    return this.bitSlotOf[key * MAX_BITS + bit]!;
  }

  /** Makes one wave's evictions, takes slots for its reads, and pins its experts until `release`. */
  apply(plan: LayerPlan, wave: number): void {
    for (let i = plan.waveEvicts[wave]!; i < plan.waveEvicts[wave + 1]!; ++i) {
      this.#evict(plan.evictKeys[i]!, plan.evictBits[i]!);
    }
    for (let i = plan.waveReads[wave]!; i < plan.waveReads[wave + 1]!; ++i) {
      this.#take(plan.readKeys[i]!, plan.readBits[i]!);
    }
    for (let i = plan.waveGroups[wave]!; i < plan.waveGroups[wave + 1]!; ++i) {
      this.#pinned[plan.layer * this.experts + plan.groupExperts[i]!] = 1;
    }
  }

  /** Takes slots for a read on a guess, of all bits up to `bits`; the expert is on probation until it is used. */
  speculate(key: number, bits: number): void {
    this.#take(key, bits);
    this.onProbation[key] = 1;
  }

  /** Gives up an expert for a guess; `apply` does so for plans. */
  makeRoom(victim: number): void {
    this.#evict(victim, 0);
  }

  /** Bits that a guess was right about. */
  used(key: number): void {
    this.onProbation[key] = 0;
  }

  /** The wave has run: its experts may lose their slots again. */
  release(plan: LayerPlan, wave: number): void {
    for (let i = plan.waveGroups[wave]!; i < plan.waveGroups[wave + 1]!; ++i) {
      this.#pinned[plan.layer * this.experts + plan.groupExperts[i]!] = 0;
    }
  }

  /** A read has ended: the planes are resident, or after an error their slots are free again. */
  landed(key: number, error: number): void {
    const wanted = this.readingBits[key]!;
    assert(wanted > 0, `expert key ${key} has no read on its way`);
    this.readingBits[key] = 0;
    --this.#reading;
    if (error === 0) {
      this.residentBits[key] = wanted;
      return;
    }
    this.#free(key, wanted, this.residentBits[key]!);
    this.onProbation[key] = 0;
  }

  /** Slots in use. */
  get usedBits(): number {
    return this.#bits.used;
  }

  get usedScales(): number {
    return this.#scales.used;
  }

  /** Slots that hold physical memory, in use or not. */
  get touchedBits(): number {
    return this.#bits.touched;
  }

  get touchedScales(): number {
    return this.#scales.touched;
  }

  /** Between waves: an expert that neither runs nor is read. */
  isAtRest(key: number): boolean {
    return this.#pinned[key] === 0 && this.readingBits[key] === 0;
  }

  /** How many slots may be in use from now on: no fewer than are. Floors follow. */
  resize(bitSlots: number, scaleSlots: number): void {
    this.#bits.setLimit(bitSlots);
    this.#scales.setLimit(scaleSlots);
    this.floors.set(layerFloors(this.layers, this.experts, expertCapacity(this)));
  }

  /** Cuts an expert at rest down to `bits`, outside of any plan. */
  drop(key: number, bits: number): void {
    this.#evict(key, bits);
  }

  /**
   * Empties slots beyond the limits from the top of what is touched, a few at a time: experts at rest move to lower slots.
   *
   * @param moves filled with [kind: 0 bits, 1 scales; from; to], which are to be copied in that order before anything
   * else is done; as many as it has room for.
   * @returns how many.
   */
  vacate(moves: Int32Array): number {
    let count = 0;
    const most = Math.floor(moves.length / 3);
    const firstBit = Math.max(this.#bits.limit, this.#bits.touched - most);
    const firstScale = Math.max(this.#scales.limit, this.#scales.touched - most);
    const move = (kind: number, pool: SlotPool, from: number): number => {
      const to = pool.move(from);
      moves[3 * count] = kind;
      moves[3 * count + 1] = from;
      moves[3 * count + 2] = to;
      ++count;
      return to;
    };
    for (let key = 0; key < this.residentBits.length; ++key) {
      if (this.residentBits[key] === 0 || this.readingBits[key]! > 0) continue;
      if (this.scaleSlotOf[key]! >= firstScale && count < most) {
        this.scaleSlotOf[key] = move(1, this.#scales, this.scaleSlotOf[key]!);
      }
      for (let at = key * MAX_BITS; at < key * MAX_BITS + this.residentBits[key]! && count < most; ++at) {
        if (this.bitSlotOf[at]! >= firstBit) this.bitSlotOf[at] = move(0, this.#bits, this.bitSlotOf[at]!);
      }
    }
    return count;
  }

  /** The memory of touched slots that are beyond the limits and in nobody's hands: [from, to) of bits, then of scales. */
  vacant(): readonly [number, number, number, number] {
    return [this.#bits.vacantFrom, this.#bits.touched, this.#scales.vacantFrom, this.#scales.touched];
  }

  /** The slots below these ends have got their memory, whether in use or not. */
  populated(bitEnd: number, scaleEnd: number): void {
    this.#bits.populated(bitEnd);
    this.#scales.populated(scaleEnd);
  }

  /** The memory from these slots on was given back. */
  gaveBack(bitSlot: number, scaleSlot: number): void {
    this.#bits.untouched(bitSlot);
    this.#scales.untouched(scaleSlot);
  }

  /** Experts resident at each number of bits. */
  residentByBits(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const bits of this.residentBits) if (bits > 0) counts[bits] = (counts[bits] ?? 0) + 1;
    return counts;
  }

  /** Throws when a slot is owned twice or not at all, or a count is wrong. For tests: walks everything. */
  checkInvariants(): void {
    const bitOwners = new Int32Array(this.#bits.capacity);
    const scaleOwners = new Int32Array(this.#scales.capacity);
    const perLayer = new Int32Array(this.layers);
    for (let key = 0; key < this.residentBits.length; ++key) {
      const held = Math.max(this.residentBits[key]!, this.readingBits[key]!);
      for (let bit = 0; bit < MAX_BITS; ++bit) {
        const slot = this.bitSlot(key, bit);
        assert(slot >= 0 === bit < held, `expert key ${key} holds ${held} bits, and bit ${bit} has slot ${slot}`);
        if (slot >= 0) bitOwners[slot] = bitOwners[slot]! + 1;
      }
      assert(this.scaleSlot(key) >= 0 === held > 0, `expert key ${key} has ${held} bits and a wrong scale slot`);
      if (held > 0) {
        scaleOwners[this.scaleSlot(key)] = scaleOwners[this.scaleSlot(key)]! + 1;
        const layer = Math.floor(key / this.experts);
        perLayer[layer] = perLayer[layer]! + 1;
      }
    }
    for (const [pool, owners] of [
      [this.#bits, bitOwners],
      [this.#scales, scaleOwners],
    ] as const) {
      const wrong = owners.findIndex((count, slot) => count !== (pool.isTaken(slot) ? 1 : 0));
      assert(wrong < 0, `slot ${wrong} is not owned once`);
      const taken = owners.reduce((sum, count) => sum + count, 0);
      assert(taken === pool.used && pool.used <= pool.limit, `${taken} slots are taken and ${pool.used} counted`);
    }
    assert.deepEqual(perLayer, this.layerExperts);
  }

  #evict(key: number, bits: number): void {
    const held = this.residentBits[key]!;
    // Less than planned is left after a read that failed; its slots are free already.
    if (held <= bits) return;
    assert(this.#pinned[key] === 0 && this.readingBits[key] === 0, `expert key ${key} is in use and cannot be evicted`);
    this.residentBits[key] = bits;
    this.#free(key, held, bits);
    if (bits > 0 || this.onProbation[key] === 0) return;
    this.onProbation[key] = 0;
    ++this.probationEvictions;
  }

  #take(key: number, bits: number): void {
    const held = this.residentBits[key]!;
    assert(this.readingBits[key] === 0 && bits > held, `expert key ${key} has ${held} bits and cannot read ${bits}`);
    if (held === 0) {
      assert(this.freeScales > 0, 'the plan takes more scale slots than are free');
      this.scaleSlotOf[key] = this.#scales.take();
      const layer = Math.floor(key / this.experts);
      this.layerExperts[layer] = this.layerExperts[layer]! + 1;
    }
    assert(this.freeBits >= bits - held, 'the plan takes more bit slots than are free');
    for (let bit = held; bit < bits; ++bit) {
      this.bitSlotOf[key * MAX_BITS + bit] = this.#bits.take();
    }
    this.readingBits[key] = bits;
    ++this.#reading;
  }

  /** Gives back the slots of bits [to, from), and the scale slot when nothing is left. */
  #free(key: number, from: number, to: number): void {
    for (let bit = to; bit < from; ++bit) {
      this.#bits.give(this.bitSlotOf[key * MAX_BITS + bit]!);
      this.bitSlotOf[key * MAX_BITS + bit] = -1;
    }
    if (to > 0) return;
    this.#scales.give(this.scaleSlotOf[key]!);
    this.scaleSlotOf[key] = -1;
    const layer = Math.floor(key / this.experts);
    this.layerExperts[layer] = this.layerExperts[layer]! - 1;
  }
}
