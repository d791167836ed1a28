/** What reads on a guess may cost: the same for the engine (engine/prefetch.ts) and for replays (replay/speculation.ts). */
import type { PlanScratch } from '../layer-plan.js';
import type { PlanSettings } from '../plan-settings.js';
import type { Residency } from '../residency.js';
import { victimOfGuess } from '../waves.js';

export const GUESS_LIMITS = {
  /** Guesses below this chance of being right are not read, be the disk ever so idle: a wrong one costs a slot and bytes. */
  confidenceLeast: 0.7,
  /** Wasted bytes as a share of all that is read. */
  wasteShare: 0.1,
  /** Whole records that may be read on a guess before demand has earned more. */
  bucketRecords: 8,
  /** Guesses of one layer at most; how many the disk has time for is learned (idle-time.ts). */
  guessesMax: 4,
  /** Tokens of a step up to which it is worth guessing: a larger step asks for most of a layer's experts anyway. */
  tokensMax: 4,
  /** Experts the slots must hold for each expert of a token, or guesses would push out what the token itself needs. */
  capacityLeast: 4,
} as const;

/** Experts that slots must hold where guesses are made: room is left for what the token needs while all guesses are on their way. */
export function guessCapacityLeast(topK: number): number {
  return Math.max(GUESS_LIMITS.capacityLeast * topK, GUESS_LIMITS.guessesMax + topK);
}

/**
 * Evicts until a whole record fits that is read on a guess about `layer`.
 * @param isExpected Uint8Array [experts]: of `layer`, what has to stay (markExpected).
 * @returns false when nothing may go; what was evicted by then stays out.
 */
export function makeRoomForGuess(
  layer: number,
  isExpected: Uint8Array,
  residency: Residency,
  settings: PlanSettings,
  scratch: PlanScratch,
): boolean {
  while (residency.freeBits < residency.fullLevel || residency.freeScales === 0) {
    const victim = victimOfGuess(layer, isExpected, residency, settings, scratch);
    if (victim < 0) return false;
    residency.makeRoom(victim);
  }
  return true;
}
