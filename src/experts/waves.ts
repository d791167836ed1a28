/**
 * In which wave does each expert of a layer run, and whose slots does it take?
 *
 * Usually there is one wave: the experts that are resident, and the missing ones whose reads land while those run. When
 * the slots do not hold all that a step needs (a prompt chunk touches most experts of a layer), experts go in waves,
 * each expert once:
 *
 *     prepare 0 | prepare 1, run 0 | prepare 2, run 1 | ...         prepare = evict, take slots, submit reads
 *
 * so that a wave's reads are on their way while the wave before it computes. What `prepare w` evicts is therefore not
 * in waves w - 1 and w. A serial wave is the exception for very few slots: it is prepared after the wave before it ran.
 */
import { MoestroError } from '../errors.js';
import type { LayerPlan, PlanScratch } from './layer-plan.js';
import type { PlanSettings } from './plan-settings.js';
import type { ResidencyView } from './residency.js';

/** Wave of an expert that no token wants, and of one that is wanted and has no wave yet. */
export const NOT_WANTED = -1;
export const LATER = 32767;

/** Places the experts of scratch.order: `hits` of them in wave 0, the missing ones up to `count` with reads and evictions. */
export function placeInWaves(
  hits: number,
  count: number,
  view: ResidencyView,
  settings: PlanSettings,
  plan: LayerPlan,
): void {
  const { scratch } = plan;
  const { order, waveOf } = scratch;
  const isStreaming = plan.misses > settings.streamThreshold;
  const readsPerWave = isStreaming ? Math.max(1, settings.streamWindow >> 1) : count;
  openWave(plan);
  for (let i = 0; i < hits; ++i) waveOf[order[i]!] = 0;
  for (let i = hits; i < count; ++i) {
    const expert = order[i]!;
    if (plan.readCount - plan.waveReads[plan.waveCount - 1]! >= readsPerWave) openWave(plan);
    let placed = place(expert, false, isStreaming, view, settings, plan);
    if (!placed && (plan.readCount > plan.waveReads[plan.waveCount - 1]! || (plan.waveCount === 1 && hits > 0))) {
      openWave(plan);
      placed = place(expert, false, isStreaming, view, settings, plan);
    }
    if (!placed && plan.waveCount > 1) {
      plan.waveSerial[plan.waveCount - 1] = 1;
      placed = place(expert, false, isStreaming, view, settings, plan);
    }
    // Last resort: experts wanted later that hold some of their bits give them up and are read whole in their turn.
    if (!placed && !place(expert, true, isStreaming, view, settings, plan)) {
      throw new MoestroError(
        'EXPERTS_EXCEED_SLOTS',
        `Cannot hold expert ${plan.layer}/${expert} at ${scratch.wanted[expert]} bits: ${view.bitSlots} bit slots and ` +
          `${view.scaleSlots} scale slots in all, needed ${scratch.wanted[expert]} and 1 free`,
        { layer: plan.layer, expert, bitSlots: view.bitSlots, scaleSlots: view.scaleSlots },
      );
    }
  }
  plan.waveReads[plan.waveCount] = plan.readCount;
  plan.waveEvicts[plan.waveCount] = plan.evictCount;
}

function openWave(plan: LayerPlan): void {
  plan.waveReads[plan.waveCount] = plan.readCount;
  plan.waveEvicts[plan.waveCount] = plan.evictCount;
  plan.waveSerial[plan.waveCount] = 0;
  ++plan.waveCount;
}

/** Puts a missing expert into the newest wave; false when slots cannot be had for it there. */
function place(
  expert: number,
  mayTakeLater: boolean,
  isStreaming: boolean,
  view: ResidencyView,
  settings: PlanSettings,
  plan: LayerPlan,
): boolean {
  const { scratch } = plan;
  const wave = plan.waveCount - 1;
  const key = plan.layer * view.experts + expert;
  const held = scratch.bits[key]!;
  const bits = scratch.wanted[expert]! - held;
  const scales = held === 0 ? 1 : 0;
  // Experts of this layer that have run when the wave is prepared.
  const ranWave = Math.max(NOT_WANTED, plan.waveSerial[wave] === 1 ? wave - 1 : wave - 2);
  while (scratch.freeBits < bits || scratch.freeScales < scales) {
    const victim = findVictim(expert, ranWave, mayTakeLater, isStreaming, view, settings, plan);
    if (victim < 0) return false;
    const victimHeld = scratch.bits[victim]!;
    const kept = scratch.freeScales < scales ? 0 : levelWithin(victimHeld - (bits - scratch.freeBits), settings.levels);
    scratch.bits[victim] = kept;
    scratch.freeBits += victimHeld - kept;
    if (kept === 0) {
      ++scratch.freeScales;
      const layer = Math.floor(victim / view.experts);
      scratch.layerExperts[layer] = scratch.layerExperts[layer]! - 1;
      if (layer !== plan.layer) ++scratch.takenElsewhere;
    }
    plan.evictKeys[plan.evictCount] = victim;
    plan.evictBits[plan.evictCount++] = kept;
  }
  scratch.freeBits -= bits;
  scratch.freeScales -= scales;
  scratch.bits[key] = held + bits;
  scratch.waveOf[expert] = wave;
  if (held === 0) scratch.layerExperts[plan.layer] = scratch.layerExperts[plan.layer]! + 1;
  plan.readKeys[plan.readCount] = key;
  plan.readFrom[plan.readCount] = held;
  plan.readBits[plan.readCount++] = held + bits;
  return true;
}

/** The highest level of at most `bits` bits, 0 when there is none. */
function levelWithin(bits: number, levels: readonly number[]): number {
  for (let i = 0; i < levels.length; ++i) if (levels[i]! <= bits) return levels[i]!;
  return 0;
}

/** Layers before this one, in the order of turns, whose experts are candidates: theirs is the longest wait. */
const DONORS_BEFORE = 4;

/**
 * Victim among the layer's own experts, those of the layers that ran just before it, and those of the layer furthest above its
 * floor, where the coldest gather. Comparing with every layer would be a scan of all residents per miss. An expert
 * of the layer that was read on a guess, wrongly, goes before any other.
 */
function findVictim(
  expert: number,
  ranWave: number,
  mayTakeLater: boolean,
  isStreaming: boolean,
  view: ResidencyView,
  settings: PlanSettings,
  plan: LayerPlan,
): number {
  const { candidates, waveOf, bits, takenElsewhere } = plan.scratch;
  const firstKey = plan.layer * view.experts;
  let count = 0;
  for (let other = 0; other < view.experts; ++other) {
    const key = firstKey + other;
    if (bits[key] === 0 || view.readingBits[key]! > 0) continue;
    if (waveOf[other]! <= ranWave || (mayTakeLater && waveOf[other] === LATER && other !== expert)) {
      if (view.onProbation[key] === 1 && waveOf[other] === NOT_WANTED) return key;
      candidates[count++] = key;
    }
  }
  if (!isStreaming || takenElsewhere < settings.streamWindow || count === 0) {
    count = addOthers(plan.layer, count, view, plan.scratch);
  }
  return settings.chooseVictim(candidates, count, view.uses, plan.layer);
}

/** Candidates of other layers: of the one furthest above its floor, and of those that ran just before `layer`. */
function addOthers(layer: number, count: number, view: ResidencyView, scratch: PlanScratch): number {
  const largest = largestOther(layer, view, scratch);
  if (largest >= 0) count = addCandidates(largest, count, view, scratch);
  for (let before = 1; before <= DONORS_BEFORE && before < view.layers; ++before) {
    const donor = (layer - before + view.layers) % view.layers;
    const isAbove = scratch.layerExperts[donor]! > view.floors[donor]!;
    if (donor !== largest && isAbove) count = addCandidates(donor, count, view, scratch);
  }
  return count;
}

function addCandidates(layer: number, count: number, view: ResidencyView, scratch: PlanScratch): number {
  const { candidates, bits } = scratch;
  for (let key = layer * view.experts; key < (layer + 1) * view.experts; ++key) {
    if (bits[key]! > 0 && view.readingBits[key] === 0) candidates[count++] = key;
  }
  return count;
}

/** The other layer furthest above its floor; -1 when none is above. */
function largestOther(layer: number, view: ResidencyView, scratch: PlanScratch): number {
  let donor = -1;
  let most = 0;
  for (let other = 0; other < view.layers; ++other) {
    const above = scratch.layerExperts[other]! - view.floors[other]!;
    if (other === layer || above <= most) continue;
    most = above;
    donor = other;
  }
  return donor;
}

/**
 * Whose slots does a guess about `layer` take? Those of what an earlier guess got wrong, else as a miss of that layer would
 * choose: from the same candidates, less what the layer itself is expected to use. Nothing is in use.
 *
 * @param isExpected Uint8Array [experts]: 1 for experts of the layer that it will probably want, guessed or resident.
 * @returns the key, or -1 when nothing may go.
 */
export function victimOfGuess(
  layer: number,
  isExpected: Uint8Array,
  view: ResidencyView,
  settings: PlanSettings,
  scratch: PlanScratch,
): number {
  const { candidates, layerExperts, bits } = scratch;
  layerExperts.set(view.layerExperts);
  bits.set(view.residentBits);
  let count = 0;
  for (let expert = 0, key = layer * view.experts; expert < view.experts; ++expert, ++key) {
    if (bits[key] === 0 || view.readingBits[key]! > 0 || isExpected[expert] === 1) continue;
    candidates[count++] = key;
  }
  count = addOthers(layer, count, view, scratch);
  for (let i = 0; i < count; ++i) if (view.onProbation[candidates[i]!] === 1) return candidates[i]!;
  return settings.chooseVictim(candidates, count, view.uses, layer);
}
