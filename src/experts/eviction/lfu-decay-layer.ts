/** Decayed uses, discounted by e for a whole round of layers until the expert's next turn. */
import type { UseView } from './choose-victim.js';

export function lfuDecayLayer(candidates: Int32Array, count: number, uses: UseView, layer: number): number {
  const { layers, experts } = uses;
  let victim = -1;
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < count; ++i) {
    const key = candidates[i]!;
    const wait = (Math.floor(key / experts) - layer - 1 + layers) % layers;
    const value = uses.decayed[key]! * Math.exp(-wait / layers);
    if (value > least) continue;
    const later = value === least ? uses.lastUse[key]! - uses.lastUse[victim]! : -1;
    if (later < 0 || (later === 0 && key < victim)) {
      least = value;
      victim = key;
    }
  }
  return victim;
}
