/** Least frequently used since start, nothing forgotten: good on one text, wrong for long after the text changes. */
import type { UseView } from './choose-victim.js';
import { leastUsed } from './least-used.js';

export function lfu(candidates: Int32Array, count: number, uses: UseView): number {
  return leastUsed(candidates, count, uses.counts, uses);
}
