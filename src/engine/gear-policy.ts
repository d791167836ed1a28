/**
 * Which of the sequences that decode run in the next step? All of them in the *joint* gear; in the *burst* gear those alike
 * to one of them, for a turn of up to 128 tokens, and then the next.
 *
 * A joint step reads the weights that streams share once for all. Where experts come from disk and streams are unlike, it
 * asks the cache for the working sets of all of them at once: on Qwen3-30B's routing, four unlike streams joined miss 2.1 to
 * 3.6 times as often a token as one alone with 25 and 50 % of the experts resident, in turns of 64 to 128 tokens 1.1 to 2
 * times. What pays depends on the machine, so it is measured: both gears are tried, and the faster one stays.
 *
 * Pure functions on plain data; gears.ts keeps the clocks.
 */
import type { Gear } from './types.js';

/** Share of joint steps spent waiting for reads from which turns are worth a try: below, nothing much is to be had. */
export const STALL_SHARE_MIN = 0.1;
/** What bursts must gain to be kept: they make answers come in spurts. */
export const GAIN_MIN = 1.05;
/** Likeness from which streams share a turn: between those of one domain and of two, see docs/batching.md. */
export const ALIKE_MIN = 0.5;
/** Tokens of a turn: more gain nothing, fewer cost more reads than they save. */
export const TURN_TOKENS_MAX = 128;
export const TURN_TOKENS_MIN = 8;

/** What is known when a gear is chosen. */
export interface GearFacts {
  readonly gear: Gear;
  /** Groups of alike streams that decode. */
  readonly groups: number;
  /** Of joint steps: share of the time in which compute waited for reads. */
  readonly stallShare: number;
  /** Tokens that one group's turn would have. */
  readonly turnTokens: number;
  /** Tokens a second in each gear, as last measured with about as many streams; null while not known. */
  readonly jointTps: number | null;
  readonly burstTps: number | null;
  /** False for a while after bursts did not pay, or joint steps were not measured for long: the gear is to be tried. */
  readonly mayTry: boolean;
}

/** The gear for the next window of steps. */
export function chooseGear(facts: GearFacts): Gear {
  const { gear, groups, stallShare, turnTokens, jointTps, burstTps, mayTry } = facts;
  if (groups < 2 || turnTokens < TURN_TOKENS_MIN || stallShare < STALL_SHARE_MIN) return 'joint';
  // Nothing to compare with: measure that first.
  if (jointTps === null) return 'joint';
  if (gear === 'burst' && burstTps === null) return 'burst';
  if (burstTps === null || mayTry) return mayTry ? 'burst' : 'joint';
  return burstTps >= jointTps * GAIN_MIN ? 'burst' : 'joint';
}

/** A turn of one of `groups`, so that no stream waits longer than `gapMs`: a step is in hand, as turns end with one. */
export function turnMs(groups: number, gapMs: number, stepMs: number): number {
  return Math.max(0, gapMs - stepMs) / Math.max(1, groups - 1) - stepMs;
}

/** Tokens of such a turn, whole steps. */
export function turnTokens(groups: number, gapMs: number, stepMs: number): number {
  if (!(stepMs > 0)) return TURN_TOKENS_MAX;
  return Math.max(0, Math.min(TURN_TOKENS_MAX, Math.floor(turnMs(groups, gapMs, stepMs) / stepMs)));
}

/**
 * Streams by likeness: each, in order, joins the first group whose first member it is like, or begins one. Those of which
 * nothing is known yet stand alone.
 *
 * @param likeness of two of them, 0 to 1, or null.
 * @returns for each of `ids` the number of its group, counted from 0.
 */
export function groupAlike(
  ids: readonly number[],
  likeness: (first: number, second: number) => number | null,
  alikeMin = ALIKE_MIN,
): number[] {
  const leaders: number[] = [];
  return ids.map((id) => {
    const found = leaders.findIndex((leader) => (likeness(leader, id) ?? 0) >= alikeMin);
    if (found >= 0) return found;
    return leaders.push(id) - 1;
  });
}
