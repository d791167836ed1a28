/** Least frequently used since start, nothing forgotten: good on one text, wrong for long after the text changes. */
import type { UseView } from './choose-victim.js';

export function lfu(candidates: Int32Array, count: number, uses: UseView): number {
  let victim = -1;
  let fewest = Number.POSITIVE_INFINITY;
  let oldest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < count; ++i) {
    const key = candidates[i]!;
    const used = uses.counts[key]!;
    if (used > fewest) continue;
    const last = uses.lastUse[key]!;
    if (used < fewest || last < oldest || (last === oldest && key < victim)) {
      fewest = used;
      oldest = last;
      victim = key;
    }
  }
  return victim;
}
