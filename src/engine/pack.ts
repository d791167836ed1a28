/** Plans to the flat records of the addon: what binding.ts calls groups and reads. */
import type { LayerPlan } from '../experts/layer-plan.js';
import type { Residency } from '../experts/residency.js';
import type { PlaneGeometry } from '../model/manifest.js';
import { GROUP, GROUP_STRIDE, READ, READ_STRIDE } from '../native/binding.js';

/** Where experts lie on disk, by model layer and expert. */
export interface ExpertFile {
  readonly geometry: PlaneGeometry;
  /** Model layer of each MoE layer. */
  readonly moeLayers: readonly number[];
  expertOffset(layer: number, expert: number): number;
  planeCrc(layer: number, expert: number, plane: number): number;
}

/** Which planes have been read and found whole: checksums are verified on the first read of a plane only. */
export class VerifiedPlanes {
  readonly #geometry: PlaneGeometry;
  /** One bit a plane, by expert key. */
  readonly #planes: Uint8Array;

  constructor(keys: number, geometry: PlaneGeometry) {
    this.#planes = new Uint8Array(keys);
    this.#geometry = geometry;
  }

  /** Planes up to `bits` have landed without an error. */
  landed(key: number, bits: number): void {
    this.#planes[key] = this.#planes[key]! | this.#mask(0, bits);
  }

  has(key: number, fromBits: number, toBits: number): boolean {
    const mask = this.#mask(fromBits, toBits);
    return (this.#planes[key]! & mask) === mask;
  }

  #mask(fromBits: number, toBits: number): number {
    let mask = 0;
    let bits = 0;
    for (let plane = 0; plane < this.#geometry.planes.length; ++plane) {
      if (bits >= fromBits && bits < toBits) mask |= 1 << plane;
      bits += this.#geometry.planes[plane]!.bits;
    }
    return mask;
  }
}

/**
 * Packs the reads of one wave, after residency took their slots.
 *
 * @param reads Int32Array [n, READ_STRIDE], offsets Float64Array [n]: filled from the start.
 * @returns how many.
 */
export function packReads(
  plan: LayerPlan,
  wave: number,
  residency: Residency,
  file: ExpertFile,
  verified: VerifiedPlanes,
  reads: Int32Array,
  offsets: Float64Array,
): number {
  let count = 0;
  for (let i = plan.waveReads[wave]!; i < plan.waveReads[wave + 1]!; ++i) {
    const key = plan.readKeys[i]!;
    packRead(key, plan.readFrom[i]!, plan.readBits[i]!, 0, residency, file, verified, reads, offsets, count++);
  }
  return count;
}

/** Packs a read of bits [from, to) of expert `key`, which holds their slots, as record `index`. */
export function packRead(
  key: number,
  from: number,
  to: number,
  priority: number,
  residency: Residency,
  file: ExpertFile,
  verified: VerifiedPlanes,
  reads: Int32Array,
  offsets: Float64Array,
  index: number,
): void {
  const { geometry } = file;
  const moe = Math.floor(key / residency.experts);
  const layer = file.moeLayers[moe]!;
  const expert = key - moe * residency.experts;
  const at = index * READ_STRIDE;
  reads.fill(0, at, at + READ_STRIDE);
  reads[at + READ.ticket] = key;
  reads[at + READ.priority] = priority;
  reads[at + READ.scaleSlot] = from === 0 ? residency.scaleSlot(key) : -1;
  reads[at + READ.bitSlotCount] = to - from;
  for (let bit = from; bit < to; ++bit) reads[at + READ.bitSlots + bit - from] = residency.bitSlot(key, bit);
  // Checks cover leading segments without gaps, so one plane not yet seen has all planes of the read checked.
  if (!verified.has(key, from, to)) packChecks(file, layer, expert, from, to, reads, at);
  offsets[index] = file.expertOffset(layer, expert) + (from === 0 ? 0 : geometry.scaleBytes + from * geometry.bitBytes);
}

function packChecks(
  file: ExpertFile,
  layer: number,
  expert: number,
  from: number,
  to: number,
  reads: Int32Array,
  at: number,
): void {
  let checks = 0;
  let segments = 0;
  let bits = 0;
  for (let plane = 0; plane < file.geometry.planes.length; ++plane) {
    const planeBits = file.geometry.planes[plane]!.bits;
    if (bits >= from && bits < to) {
      segments |= (planeBits + (plane === 0 ? 1 : 0)) << (8 * checks);
      reads[at + READ.checkCrcs + checks] = file.planeCrc(layer, expert, plane) | 0;
      ++checks;
    }
    bits += planeBits;
  }
  reads[at + READ.checkCount] = checks;
  reads[at + READ.checkSegments] = segments;
}

/**
 * Packs group `index` of a plan as record `at`; its ticket is that of the read on its way, or -1.
 *
 * @returns false when its planes are neither resident nor on their way: their read has failed.
 */
export function packGroup(
  plan: LayerPlan,
  index: number,
  residency: Residency,
  groups: Int32Array,
  record: number,
): boolean {
  const expert = plan.groupExperts[index]!;
  const level = plan.groupLevels[index]!;
  const key = plan.layer * residency.experts + expert;
  const isResident = residency.residentBits[key]! >= level;
  if (!isResident && residency.readingBits[key]! < level) return false;
  const at = record * GROUP_STRIDE;
  groups[at + GROUP.expert] = expert;
  groups[at + GROUP.level] = level;
  groups[at + GROUP.ticket] = isResident ? -1 : key;
  groups[at + GROUP.first] = plan.groupFirst[index]!;
  groups[at + GROUP.count] = plan.groupCounts[index]!;
  groups[at + GROUP.scaleSlot] = residency.scaleSlot(key);
  for (let bit = 0; bit < 8; ++bit) {
    groups[at + GROUP.bitSlots + bit] = bit < level ? residency.bitSlot(key, bit) : -1;
  }
  groups[at + GROUP.error] = 0;
  groups[at + GROUP.waited] = 0;
  return true;
}
