/** What the counting policies share: the candidate with the fewest uses, by whichever count. */
import type { UseView } from './choose-victim.js';

/** @param used uses by expert key. Candidates, count and the order of equal ones as `ChooseVictim` says. */
export function leastUsed(candidates: Int32Array, count: number, used: Float64Array, uses: UseView): number {
  let victim = -1;
  let fewest = Number.POSITIVE_INFINITY;
  let oldest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < count; ++i) {
    const key = candidates[i]!;
    if (used[key]! > fewest) continue;
    const last = uses.lastUse[key]!;
    if (used[key]! < fewest || last < oldest || (last === oldest && key < victim)) {
      fewest = used[key]!;
      oldest = last;
      victim = key;
    }
  }
  return victim;
}
