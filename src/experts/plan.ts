/** Decides what one MoE layer does in one step: which experts run in which wave, what is read, what is evicted. */
import { kindOf, type LayerPlan, LEVEL_KINDS, LEVELS, type PlanScratch } from './layer-plan.js';
import type { PlanSettings } from './plan-settings.js';
import type { ResidencyView } from './residency.js';
import { LATER, NOT_WANTED, placeInWaves } from './waves.js';

/** What the router chose for one layer, and at how many bits: one object of the engine, filled anew for every layer. */
export interface Routing {
  /** Index among the MoE layers. */
  layer: number;
  tokens: number;
  readonly topK: number;
  /** Uint16Array [tokens, topK], Float32Array [tokens, topK], levels Uint8Array [tokens, topK]. */
  readonly ids: Uint16Array;
  readonly weights: Float32Array;
  readonly levels: Uint8Array;
  /** Uint8Array [tokens]: 0 for tokens whose sequence has failed; their experts are not planned. */
  readonly live: Uint8Array;
}

/**
 * Plans one layer of one step. Pure but for `plan`, which it fills: the view is read, never changed.
 *
 * Hits run first, all in wave 0, and with them those whose read on a guess is on its way; misses follow hottest first (most tokens served, then routing mass, then the lower id),
 * which is also the order of their reads. An expert resident with too few bits reads only the planes it lacks.
 *
 * @param routing top-k choice and levels per token.
 * @param view residency at the start of the layer, uses of this step already recorded.
 * @returns `plan`, whose groups hold each (token, rank) of live tokens exactly once and each expert in one wave.
 * @throws {MoestroError} EXPERTS_EXCEED_SLOTS when not even one expert fits.
 */
export function planExperts(routing: Routing, view: ResidencyView, settings: PlanSettings, plan: LayerPlan): LayerPlan {
  const { scratch } = plan;
  plan.layer = routing.layer;
  plan.waveCount = 0;
  plan.groupCount = 0;
  plan.readCount = 0;
  plan.evictCount = 0;
  plan.hits = 0;
  plan.misses = 0;
  plan.missedBitSlots = 0;
  plan.missedScaleSlots = 0;
  scratch.bits.set(view.residentBits);
  scratch.layerExperts.set(view.layerExperts);
  scratch.freeBits = view.freeBits;
  scratch.freeScales = view.freeScales;
  scratch.takenElsewhere = 0;

  countWanted(routing, scratch);
  const covered = orderExperts(routing.layer * view.experts, view, plan);
  const wantedExperts = plan.hits + plan.misses;
  if (wantedExperts === 0) return plan;
  placeInWaves(covered, wantedExperts, view, settings, plan);
  emitGroups(routing, wantedExperts, plan);
  return plan;
}

/**
 * The plan of one token whose experts are all resident, the same as `planExperts` makes, without its passes over all experts of
 * the layer: those take longer than all else that a decode step decides.
 *
 * @returns false when it is not so simple; the plan is then to be made by `planExperts`.
 */
export function planResident(routing: Routing, view: ResidencyView, plan: LayerPlan): boolean {
  const { topK, ids, levels, layer } = routing;
  if (routing.tokens !== 1 || routing.live[0] === 0) return false;
  const { groupExperts, groupLevels, groupFirst, groupCounts, assignments } = plan;
  const first = layer * view.experts;
  for (let at = 0; at < topK; ++at) {
    const expert = ids[at]!;
    const level = levels[at]!;
    if (view.residentBits[first + expert]! < level) return false;
    // Insertion by id: there are eight or so.
    let to = at;
    while (to > 0 && groupExperts[to - 1]! >= expert) {
      if (groupExperts[to - 1] === expert) return false;
      groupExperts[to] = groupExperts[to - 1]!;
      groupLevels[to] = groupLevels[to - 1]!;
      assignments[to] = assignments[to - 1]!;
      --to;
    }
    groupExperts[to] = expert;
    groupLevels[to] = level;
    assignments[to] = at;
    groupFirst[at] = at;
    groupCounts[at] = 1;
  }
  plan.layer = layer;
  plan.waveCount = 1;
  plan.waveGroups[0] = 0;
  plan.waveGroups[1] = topK;
  plan.waveReads[0] = 0;
  plan.waveReads[1] = 0;
  plan.waveEvicts[0] = 0;
  plan.waveEvicts[1] = 0;
  plan.waveSerial[0] = 0;
  plan.groupCount = topK;
  plan.readCount = 0;
  plan.evictCount = 0;
  plan.hits = topK;
  plan.misses = 0;
  plan.missedBitSlots = 0;
  plan.missedScaleSlots = 0;
  return true;
}

function countWanted(routing: Routing, scratch: PlanScratch): void {
  scratch.served.fill(0);
  scratch.mass.fill(0);
  scratch.wanted.fill(0);
  scratch.buckets.fill(0);
  const { topK, ids, weights, levels, live } = routing;
  for (let token = 0; token < routing.tokens; ++token) {
    if (live[token] === 0) continue;
    for (let at = token * topK; at < (token + 1) * topK; ++at) {
      const expert = ids[at]!;
      const level = levels[at]!;
      scratch.served[expert] = scratch.served[expert]! + 1;
      scratch.mass[expert] = scratch.mass[expert]! + weights[at]!;
      if (level > scratch.wanted[expert]!) scratch.wanted[expert] = level;
      const bucket = expert * LEVEL_KINDS + kindOf(level);
      scratch.buckets[bucket] = scratch.buckets[bucket]! + 1;
    }
  }
}

/**
 * Fills scratch.order: hits by id, then experts whose read is on its way, then misses hottest first. Returns the number
 * that need no read. Reads on their way that reach less than the bits wanted are over before a plan is made.
 */
function orderExperts(firstKey: number, view: ResidencyView, plan: LayerPlan): number {
  const { scratch } = plan;
  const { order, wanted, waveOf } = scratch;
  let covered = 0;
  for (let expert = 0; expert < view.experts; ++expert) {
    waveOf[expert] = wanted[expert] === 0 ? NOT_WANTED : LATER;
    if (wanted[expert] === 0 || view.residentBits[firstKey + expert]! < wanted[expert]!) continue;
    order[covered++] = expert;
  }
  plan.hits = covered;
  for (let expert = 0; expert < view.experts; ++expert) {
    if (!isArriving(firstKey + expert, wanted[expert]!, view)) continue;
    order[covered++] = expert;
    ++plan.misses;
  }
  let count = covered;
  for (let expert = 0; expert < view.experts; ++expert) {
    const resident = view.residentBits[firstKey + expert]!;
    if (resident >= wanted[expert]! || isArriving(firstKey + expert, wanted[expert]!, view)) continue;
    ++plan.misses;
    plan.missedBitSlots += wanted[expert]! - resident;
    if (resident === 0) ++plan.missedScaleSlots;
    // Insertion into the sorted tail: a decode step has a handful, a prompt chunk a few hundred at most.
    let at = count++;
    while (at > covered && isHotter(expert, order[at - 1]!, scratch)) {
      order[at] = order[at - 1]!;
      --at;
    }
    order[at] = expert;
  }
  return covered;
}

/** Not resident at the bits wanted, and a read that brings them is on its way. */
const isArriving = (key: number, wanted: number, view: ResidencyView): boolean =>
  wanted > view.residentBits[key]! && view.readingBits[key]! >= wanted;

function isHotter(a: number, b: number, scratch: PlanScratch): boolean {
  const served = scratch.served[a]! - scratch.served[b]!;
  if (served !== 0) return served > 0;
  const mass = scratch.mass[a]! - scratch.mass[b]!;
  return mass !== 0 ? mass > 0 : a < b;
}

/** Writes groups wave by wave, in the order experts were placed, and lists each group's tokens. */
function emitGroups(routing: Routing, count: number, plan: LayerPlan): void {
  const { order, waveOf, buckets, cursors } = plan.scratch;
  let first = 0;
  let wave = -1;
  for (let i = 0; i < count; ++i) {
    const expert = order[i]!;
    while (wave < waveOf[expert]!) plan.waveGroups[++wave] = plan.groupCount;
    for (let kind = 0; kind < LEVEL_KINDS; ++kind) {
      const tokens = buckets[expert * LEVEL_KINDS + kind]!;
      if (tokens === 0) continue;
      cursors[expert * LEVEL_KINDS + kind] = first;
      plan.groupExperts[plan.groupCount] = expert;
      plan.groupLevels[plan.groupCount] = LEVELS[kind]!;
      plan.groupFirst[plan.groupCount] = first;
      plan.groupCounts[plan.groupCount++] = tokens;
      first += tokens;
    }
  }
  while (wave < plan.waveCount) plan.waveGroups[++wave] = plan.groupCount;
  const { topK, ids, levels, live } = routing;
  for (let token = 0; token < routing.tokens; ++token) {
    if (live[token] === 0) continue;
    for (let at = token * topK; at < (token + 1) * topK; ++at) {
      const bucket = ids[at]! * LEVEL_KINDS + kindOf(levels[at]!);
      plan.assignments[cursors[bucket]!] = at;
      cursors[bucket] = cursors[bucket]! + 1;
    }
  }
}
