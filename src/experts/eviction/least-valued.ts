/** What the policies that know of turns share: the candidate of least value, where value depends on the wait for its layer. */
import type { UseView } from './choose-victim.js';

/**
 * @param worth by expert key and the layers that run before its own does, 0 for the layer that is next.
 * Candidates, count and the order of equal ones as `ChooseVictim` says.
 */
export function leastValued(
  candidates: Int32Array,
  count: number,
  uses: UseView,
  layer: number,
  worth: (uses: UseView, key: number, wait: number) => number,
): number {
  const { layers, experts } = uses;
  let victim = -1;
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < count; ++i) {
    const key = candidates[i]!;
    const wait = (Math.floor(key / experts) - layer - 1 + layers) % layers;
    const value = worth(uses, key, wait);
    if (value > least) continue;
    const later = value === least ? uses.lastUse[key]! - uses.lastUse[victim]! : -1;
    if (later < 0 || (later === 0 && key < victim)) {
      least = value;
      victim = key;
    }
  }
  return victim;
}
