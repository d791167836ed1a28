/** Least recently used: the baseline of every table. */
import type { UseView } from './choose-victim.js';

export function lru(candidates: Int32Array, count: number, uses: UseView): number {
  let victim = -1;
  let oldest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < count; ++i) {
    const key = candidates[i]!;
    const used = uses.lastUse[key]!;
    if (used < oldest || (used === oldest && key < victim)) {
      oldest = used;
      victim = key;
    }
  }
  return victim;
}
