/**
 * Recency, frequency and nearness of the layer, added with equal weights. @see HOBBIT, arXiv:2411.01433; its fourth term, uses at
 * high precision, is the frequency where there is one precision.
 */
import type { UseView } from './choose-victim.js';

export function hobbit(candidates: Int32Array, count: number, uses: UseView, layer: number): number {
  const { layers, experts } = uses;
  let newest = 1;
  let most = 1;
  for (let i = 0; i < count; ++i) {
    newest = Math.max(newest, uses.lastUse[candidates[i]!]!);
    most = Math.max(most, uses.counts[candidates[i]!]!);
  }
  let victim = -1;
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < count; ++i) {
    const key = candidates[i]!;
    const wait = (Math.floor(key / experts) - layer - 1 + layers) % layers;
    const value = uses.lastUse[key]! / newest + uses.counts[key]! / most + 1 - wait / layers;
    if (value < least || (value === least && key < victim)) {
      least = value;
      victim = key;
    }
  }
  return victim;
}
