/** Least frequently used with counts that halve every few tokens: frequency and recency in one number. */
import type { UseView } from './choose-victim.js';
import { leastUsed } from './least-used.js';

export function lfuDecay(candidates: Int32Array, count: number, uses: UseView): number {
  return leastUsed(candidates, count, uses.decayed, uses);
}
