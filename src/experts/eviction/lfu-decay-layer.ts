/** Decayed uses, discounted by e for a whole round of layers until the expert's next turn. */
import type { UseView } from './choose-victim.js';
import { leastValued } from './least-valued.js';

export function lfuDecayLayer(candidates: Int32Array, count: number, uses: UseView, layer: number): number {
  return leastValued(candidates, count, uses, layer, discountedUses);
}

const discountedUses = ({ decayed, layers }: UseView, key: number, wait: number): number =>
  decayed[key]! * Math.exp(-wait / layers);
