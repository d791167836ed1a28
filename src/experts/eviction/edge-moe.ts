/** Uses divided by the layers until the expert's next turn. @see EdgeMoE, arXiv:2308.14352 (its formula, distance set right). */
import type { UseView } from './choose-victim.js';

export function edgeMoe(candidates: Int32Array, count: number, uses: UseView, layer: number): number {
  const { layers, experts } = uses;
  let victim = -1;
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < count; ++i) {
    const key = candidates[i]!;
    const distance = ((Math.floor(key / experts) - layer - 1 + layers) % layers) + 1;
    const value = uses.counts[key]! / distance;
    if (value > least) continue;
    const later = value === least ? uses.lastUse[key]! - uses.lastUse[victim]! : -1;
    if (later < 0 || (later === 0 && key < victim)) {
      least = value;
      victim = key;
    }
  }
  return victim;
}
