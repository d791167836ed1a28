/** Uses divided by the layers until the expert's next turn. @see EdgeMoE, arXiv:2308.14352 (its formula, distance set right). */
import type { UseView } from './choose-victim.js';
import { leastValued } from './least-valued.js';

export function edgeMoe(candidates: Int32Array, count: number, uses: UseView, layer: number): number {
  return leastValued(candidates, count, uses, layer, usesByDistance);
}

const usesByDistance = ({ counts }: UseView, key: number, wait: number): number => counts[key]! / (wait + 1);
