/** What may be chosen about plans: the eviction policy, and when a layer streams its experts through few slots. */
import type { ChooseVictim } from './eviction/choose-victim.js';
import { expectedUse } from './eviction/expected-use.js';
import { expertCapacity, type ResidencyView } from './residency.js';

export interface PlanSettings {
  /** Levels the model has: what an expert may be cut down to. */
  readonly levels: readonly number[];
  readonly chooseVictim: ChooseVictim;
  /** Misses of one layer above which they stream through a window of slots instead of pushing out residents. */
  readonly streamThreshold: number;
  /** Experts of that window that may be taken from other layers. */
  readonly streamWindow: number;
}

/**
 * Settings for a number of slots. Streaming starts where a layer misses more than its share of the capacity, and not
 * below two tokens' worth: a decode step never streams. The window is two tokens' worth of experts, or a sixteenth of
 * the capacity where that is more, 64 at most: half a window in flight keeps any disk busy, and what a prompt chunk can
 * take from the decode cache stays small. Inside the window an expert stays when it is worth more than the layer's
 * coldest resident, and goes when the next one needs room.
 */
export function planSettings(
  view: Pick<ResidencyView, 'layers' | 'bitSlots' | 'scaleSlots' | 'fullLevel'>,
  levels: readonly number[],
  topK: number,
  chooseVictim: ChooseVictim = expectedUse,
): PlanSettings {
  const capacity = expertCapacity(view);
  return {
    levels: [...levels].sort((a, b) => b - a),
    chooseVictim,
    streamThreshold: Math.max(2 * topK, Math.floor(capacity / view.layers)),
    streamWindow: Math.max(2 * topK, Math.min(64, capacity >> 4)),
  };
}
