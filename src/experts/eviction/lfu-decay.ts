/** Least frequently used with counts that halve every few tokens: frequency and recency in one number. The default. */
import type { UseView } from './choose-victim.js';

export function lfuDecay(candidates: Int32Array, count: number, uses: UseView): number {
  let victim = -1;
  let fewest = Number.POSITIVE_INFINITY;
  let oldest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < count; ++i) {
    const key = candidates[i]!;
    const used = uses.decayed[key]!;
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
