/**
 * At how many bits does a token want each of its experts? A deterministic function of the request alone: its mode and
 * its routing weights, never of what happens to be resident.
 *
 * Gates are flat: the lower half of the chosen ranks still carries a third of the mass, so precision falls by one step
 * for the middle and by two for the tail only, and never below two bits.
 */

/** Levels from the full one downward: what the first ranks, the middle and the tail run at. */
export type LevelLadder = readonly [full: number, middle: number, tail: number];

/** Ranks that begin before this share of the mass run at the full level. Half: the dominant ranks, two to four of eight. */
export const FULL_LEVEL_MASS = 0.5;
/** Ranks that begin at or after this share run two levels below: the last fifth of the mass, two or three of eight. */
export const TAIL_MASS = 0.8;

/**
 * The ladder of a model. From level 8 the next step is 4, from 4 it is 3, from 3 it is 2; a ladder that reaches the
 * lowest level stays there.
 *
 * @param levels levels the model has, in any order.
 * @param full one of them.
 */
export function levelLadder(levels: readonly number[], full: number): LevelLadder {
  const down = levels.filter((level) => level <= full).sort((a, b) => b - a);
  const middle = down[1] ?? full;
  return [full, middle, down[2] ?? middle];
}

/**
 * Levels of one token's experts.
 *
 * @param isExact every rank at the full level.
 * @param weights routing weights Float32Array [tokens, topK], highest first; need not sum to 1.
 * @param token row of `weights` and of `out`.
 * @param out Uint8Array [tokens, topK], filled at the token's row.
 */
export function chooseLevels(
  isExact: boolean,
  ladder: LevelLadder,
  weights: Float32Array,
  topK: number,
  token: number,
  out: Uint8Array,
): void {
  const first = token * topK;
  if (isExact) {
    out.fill(ladder[0], first, first + topK);
    return;
  }
  let mass = 0;
  for (let rank = 0; rank < topK; ++rank) mass += weights[first + rank]!;
  let before = 0;
  for (let rank = 0; rank < topK; ++rank) {
    // The first rank is always at the full level, also where a router gives no usable weights.
    out[first + rank] =
      rank === 0 || before < FULL_LEVEL_MASS * mass ? ladder[0] : before < TAIL_MASS * mass ? ladder[1] : ladder[2];
    before += weights[first + rank]!;
  }
}
