/**
 * Decides what one MoE layer does in one step: which experts run in which wave, what is read, what is evicted.
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
import type { ChooseVictim } from './eviction/choose-victim.js';
import { lfuDecay } from './eviction/lfu-decay.js';
import { expertCapacity, MAX_BITS, type ResidencyView } from './residency.js';

/** Levels 2, 3, 4 and 8 as 0..3, to index small tables. */
const LEVEL_KINDS = 4;
const LEVELS = [2, 3, 4, 8] as const;
const kindOf = (level: number): number => (level === 8 ? 3 : level - 2);

/** Wave of an expert that no token wants, and of one that is wanted and has no wave yet. */
const NOT_WANTED = -1;
const LATER = 32767;

/** What the router chose for one layer, and at how many bits. */
export interface Routing {
  /** Index among the MoE layers. */
  readonly layer: number;
  readonly tokens: number;
  readonly topK: number;
  /** Uint16Array [tokens, topK], Float32Array [tokens, topK], levels Uint8Array [tokens, topK]. */
  readonly ids: Uint16Array;
  readonly weights: Float32Array;
  readonly levels: Uint8Array;
  /** Uint8Array [tokens]: 0 for tokens whose sequence has failed; their experts are not planned. */
  readonly live: Uint8Array;
}

export interface PlanSettings {
  /** Levels the model has: what an expert may be cut down to. */
  readonly levels: readonly number[];
  readonly chooseVictim: ChooseVictim;
  /** Misses of one layer above which they stream through a window of slots instead of pushing out residents. */
  readonly streamThreshold: number;
  /** Experts of that window that may be taken from other layers. */
  readonly streamWindow: number;
}

/**
 * Settings for a number of slots. Streaming starts where a layer misses more than its share of the capacity, and not
 * below two tokens' worth: a decode step never streams. The window is two tokens' worth of experts, or a sixteenth of
 * the capacity where that is more, 64 at most: half a window in flight keeps any disk busy, and what a prompt chunk can
 * take from the decode cache stays small. Inside the window an expert stays when its decayed use is above that of the
 * layer's coldest resident, and goes when the next one needs room.
 */
export function planSettings(
  view: Pick<ResidencyView, 'layers' | 'bitSlots' | 'scaleSlots' | 'fullLevel'>,
  levels: readonly number[],
  topK: number,
  chooseVictim: ChooseVictim = lfuDecay,
): PlanSettings {
  const capacity = expertCapacity(view);
  return {
    levels: [...levels].sort((a, b) => b - a),
    chooseVictim,
    streamThreshold: Math.max(2 * topK, Math.floor(capacity / view.layers)),
    streamWindow: Math.max(2 * topK, Math.min(64, capacity >> 4)),
  };
}

/** One layer's plan, in arrays made at start and filled anew for every layer. Wave w is entries [wave*[w], wave*[w + 1]). */
export interface LayerPlan {
  layer: number;
  waveCount: number;
  readonly waveGroups: Int32Array;
  readonly waveReads: Int32Array;
  readonly waveEvicts: Int32Array;
  /** 1: prepared only after the wave before it has run. */
  readonly waveSerial: Uint8Array;
  /** A group is one expert at one level; its tokens are assignments[first .. first + count), each token * topK + rank. */
  groupCount: number;
  readonly groupExperts: Int32Array;
  readonly groupLevels: Int32Array;
  readonly groupFirst: Int32Array;
  readonly groupCounts: Int32Array;
  readonly assignments: Int32Array;
  /** Reads: planes of expert key from `readFrom` bits up to `readBits`. */
  readCount: number;
  readonly readKeys: Int32Array;
  readonly readFrom: Int32Array;
  readonly readBits: Int32Array;
  /** Evictions: expert key keeps `evictBits` bits. */
  evictCount: number;
  readonly evictKeys: Int32Array;
  readonly evictBits: Int32Array;
  /** Experts resident at the level wanted and not, each counted once; what the missing ones lack. */
  hits: number;
  misses: number;
  missedBitSlots: number;
  missedScaleSlots: number;
  readonly scratch: PlanScratch;
}

/** Working memory of `planExperts`: what residency will look like as the plan goes on. */
class PlanScratch {
  readonly served: Int32Array;
  readonly mass: Float64Array;
  readonly wanted: Uint8Array;
  readonly waveOf: Int16Array;
  readonly order: Int32Array;
  readonly buckets: Int32Array;
  readonly cursors: Int32Array;
  readonly bits: Uint8Array;
  readonly layerExperts: Int32Array;
  readonly candidates: Int32Array;
  freeBits = 0;
  freeScales = 0;
  /** Experts taken from other layers by a streaming plan. */
  takenElsewhere = 0;

  constructor(layers: number, experts: number) {
    this.served = new Int32Array(experts);
    this.mass = new Float64Array(experts);
    this.wanted = new Uint8Array(experts);
    this.waveOf = new Int16Array(experts);
    this.order = new Int32Array(experts);
    this.buckets = new Int32Array(experts * LEVEL_KINDS);
    this.cursors = new Int32Array(experts * LEVEL_KINDS);
    this.bits = new Uint8Array(layers * experts);
    this.layerExperts = new Int32Array(layers);
    this.candidates = new Int32Array(2 * experts);
  }
}

/** @param tokens of one step at most. */
export function createLayerPlan(layers: number, experts: number, tokens: number, topK: number): LayerPlan {
  const groups = Math.min(experts * LEVEL_KINDS, tokens * topK);
  const evictions = experts * (MAX_BITS + 1) + 1;
  return {
    layer: 0,
    waveCount: 0,
    waveGroups: new Int32Array(experts + 3),
    waveReads: new Int32Array(experts + 3),
    waveEvicts: new Int32Array(experts + 3),
    waveSerial: new Uint8Array(experts + 3),
    groupCount: 0,
    groupExperts: new Int32Array(groups),
    groupLevels: new Int32Array(groups),
    groupFirst: new Int32Array(groups),
    groupCounts: new Int32Array(groups),
    assignments: new Int32Array(tokens * topK),
    readCount: 0,
    readKeys: new Int32Array(experts),
    readFrom: new Int32Array(experts),
    readBits: new Int32Array(experts),
    evictCount: 0,
    evictKeys: new Int32Array(evictions),
    evictBits: new Int32Array(evictions),
    hits: 0,
    misses: 0,
    missedBitSlots: 0,
    missedScaleSlots: 0,
    scratch: new PlanScratch(layers, experts),
  };
}

/**
 * Plans one layer of one step. Pure but for `plan`, which it fills: the view is read, never changed.
 *
 * Hits run first, all in wave 0; misses follow hottest first (most tokens served, then routing mass, then the lower id),
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
  const hits = orderExperts(routing.layer * view.experts, view, plan);
  const wantedExperts = hits + plan.misses;
  if (wantedExperts === 0) return plan;
  placeInWaves(hits, wantedExperts, view, settings, plan);
  emitGroups(routing, wantedExperts, plan);
  return plan;
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

/** Fills scratch.order: hits by id, then misses hottest first. Returns the number that need no read. */
function orderExperts(firstKey: number, view: ResidencyView, plan: LayerPlan): number {
  const { scratch } = plan;
  const { order, wanted, waveOf } = scratch;
  let hits = 0;
  for (let expert = 0; expert < view.experts; ++expert) {
    waveOf[expert] = wanted[expert] === 0 ? NOT_WANTED : LATER;
    if (wanted[expert] === 0 || view.residentBits[firstKey + expert]! < wanted[expert]!) continue;
    order[hits++] = expert;
  }
  plan.hits = hits;
  let count = hits;
  for (let expert = 0; expert < view.experts; ++expert) {
    const resident = view.residentBits[firstKey + expert]!;
    if (resident >= wanted[expert]!) continue;
    ++plan.misses;
    plan.missedBitSlots += wanted[expert]! - resident;
    if (resident === 0) ++plan.missedScaleSlots;
    // Insertion into the sorted tail: a decode step has a handful, a prompt chunk a few hundred at most.
    let at = count++;
    while (at > hits && isHotter(expert, order[at - 1]!, scratch)) {
      order[at] = order[at - 1]!;
      --at;
    }
    order[at] = expert;
  }
  return hits;
}

function isHotter(a: number, b: number, scratch: PlanScratch): boolean {
  const served = scratch.served[a]! - scratch.served[b]!;
  if (served !== 0) return served > 0;
  const mass = scratch.mass[a]! - scratch.mass[b]!;
  return mass !== 0 ? mass > 0 : a < b;
}

function placeInWaves(hits: number, count: number, view: ResidencyView, settings: PlanSettings, plan: LayerPlan): void {
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

/**
 * Victim among the layer's own experts and those of one other layer: the one furthest above its floor. Comparing with
 * every layer would be a scan of all residents per miss; the largest layer is where the coldest experts gather.
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
      candidates[count++] = key;
    }
  }
  if (!isStreaming || takenElsewhere < settings.streamWindow || count === 0) {
    const donor = largestOther(plan.layer, view, plan.scratch);
    for (let key = donor * view.experts; donor >= 0 && key < (donor + 1) * view.experts; ++key) {
      if (bits[key]! > 0 && view.readingBits[key] === 0) candidates[count++] = key;
    }
  }
  return settings.chooseVictim(candidates, count, view.uses);
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
