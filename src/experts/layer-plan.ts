/** One layer's plan and the working memory to make it, in arrays made at start: a step allocates nothing. */

/** Bit slots of one expert at most. */
export const MAX_BITS = 8;
/** Levels 2, 3, 4 and 8 as kinds 0..3, to index small tables. */
export const LEVELS = [2, 3, 4, 8] as const;
export const LEVEL_KINDS = LEVELS.length;
export const kindOf = (level: number): number => (level === 8 ? 3 : level - 2);

/** Filled anew for every layer. Wave w is entries [wave*[w], wave*[w + 1]). */
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
export class PlanScratch {
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
    // The layer's own, those of the four before it, and those of the largest.
    this.candidates = new Int32Array(6 * experts);
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
