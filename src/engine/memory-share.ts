/**
 * How is the memory divided right now? The plan (memory-plan.ts) fixes at start what cannot change: dense weights,
 * scratch, and how many KV blocks there may be. This divides the rest again whenever the budget or what is taken
 * changes: KV blocks that were never written, and what Node.js does not take, serve as expert slots until they are needed.
 */

export interface MemoryShape {
  readonly dense: number;
  readonly scratch: number;
  readonly kvBlockBytes: number;
  /** KV blocks at most, and the fewest that will do. */
  readonly kvBlocks: number;
  readonly kvBlocksMin: number;
  readonly level: number;
  /** Bits that an expert holds in the mean: below `level` where experts run at several. */
  readonly meanLevel: number;
  readonly bitBytes: number;
  readonly scaleBytes: number;
  /** Experts that a step needs at least, that may be resident at most, and that there are. */
  readonly expertsMin: number;
  readonly expertsMax: number;
  readonly expertCount: number;
}

export interface MemoryShare {
  readonly bitSlots: number;
  readonly scaleSlots: number;
  /** KV blocks that may be in use, and those that the budget really affords: fewer while open requests hold more. */
  readonly kvBlocks: number;
  readonly kvAfforded: number;
  /** The budget below which not even that is possible. */
  readonly floorBytes: number;
}

/**
 * @param budget bytes for everything.
 * @param runtime what Node.js takes.
 * @param kvTouched KV blocks that hold memory.
 * @param kvLeast KV blocks that open requests cannot do without.
 * @returns the least of everything where the budget is below the floor.
 */
export function shareMemory(
  shape: MemoryShape,
  budget: number,
  runtime: number,
  kvTouched: number,
  kvLeast: number,
): MemoryShare {
  const experts = shape.expertsMin * (shape.level * shape.bitBytes + shape.scaleBytes);
  const left = budget - shape.dense - shape.scratch - runtime;
  const least = Math.min(shape.kvBlocks, Math.max(kvLeast, shape.kvBlocksMin));
  const most = Math.floor((left - experts) / shape.kvBlockBytes);
  return {
    ...slotsWithin(Math.max(experts, left - kvTouched * shape.kvBlockBytes), shape),
    kvBlocks: Math.max(least, Math.min(shape.kvBlocks, most)),
    kvAfforded: Math.max(shape.kvBlocksMin, Math.min(shape.kvBlocks, most)),
    floorBytes: shape.dense + shape.scratch + runtime + least * shape.kvBlockBytes + experts,
  };
}

/** Slots of the arena within `most` bytes. */
export function slotsWithin(
  most: number,
  shape: Pick<MemoryShape, 'level' | 'meanLevel' | 'bitBytes' | 'scaleBytes' | 'expertsMax' | 'expertCount'>,
): { readonly bitSlots: number; readonly scaleSlots: number } {
  const { level, meanLevel, bitBytes, scaleBytes, expertsMax, expertCount } = shape;
  // A cap on experts is one on bytes: where they hold fewer bits there may be more of them.
  const bytes = Math.min(most, expertsMax * (level * bitBytes + scaleBytes));
  const scaleSlots = Math.min(
    Math.floor(bytes / (meanLevel * bitBytes + scaleBytes)),
    expertCount,
    Math.floor((expertsMax * level) / meanLevel),
  );
  // At one level the last bits that are no whole expert would never be used.
  if (meanLevel === level) return { bitSlots: scaleSlots * level, scaleSlots };
  return {
    bitSlots: Math.min(Math.floor((bytes - scaleSlots * scaleBytes) / bitBytes), expertsMax * level),
    scaleSlots,
  };
}
