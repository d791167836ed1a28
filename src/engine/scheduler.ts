/**
 * Which sequences run this step, and how many tokens each? Decode tokens first, one a sequence, as someone is reading
 * along; then prompts share what the step still holds, equally, so that a long prompt does not lock out a short one.
 */

/** A sequence as the scheduler sees it. */
export interface Runnable {
  /** Tokens that are known and not yet computed: 1 while decoding, more in prefill. */
  readonly pending: number;
  /** Step in which it last ran, -1 for never. */
  readonly lastStep: number;
}

/**
 * Fills `out` with tokens per sequence, 0 for those that do not run; the sum is at most `stepTokens`. Where even one
 * token each is too many, those that have waited longest go first, so none starves.
 *
 * @param sequences in order of arrival.
 * @param out Int32Array with at least one entry a sequence.
 * @param rests 1 for a sequence that waits for its turn: gears.ts.
 * @returns tokens scheduled.
 */
export function scheduleStep(
  sequences: readonly Runnable[],
  stepTokens: number,
  out: Int32Array,
  rests: ArrayLike<number> = [],
): number {
  out.fill(0, 0, sequences.length);
  const pending = (i: number): number => (rests[i] === 1 ? 0 : sequences[i]!.pending);
  let left = stepTokens;
  let runnable = 0;
  for (let i = 0; i < sequences.length; ++i) if (pending(i) > 0) ++runnable;
  if (runnable > left) {
    for (; left > 0; --left) out[longestWaiting(sequences, pending, out)] = 1;
    return stepTokens;
  }

  let prefilling = 0;
  for (let i = 0; i < sequences.length; ++i) {
    if (pending(i) === 1) {
      out[i] = 1;
      --left;
    } else if (pending(i) > 1) {
      ++prefilling;
    }
  }
  // Equal shares; what a short prompt leaves goes to the others in the next round.
  while (prefilling > 0 && left > 0) {
    const share = Math.max(1, Math.floor(left / prefilling));
    for (let i = 0; i < sequences.length && left > 0; ++i) {
      const wanted = pending(i) - out[i]!;
      if (wanted <= 0) continue;
      const given = Math.min(wanted, share, left);
      out[i] = out[i]! + given;
      left -= given;
      if (given === wanted) --prefilling;
    }
  }
  return stepTokens - left;
}

function longestWaiting(sequences: readonly Runnable[], pending: (i: number) => number, out: Int32Array): number {
  let best = -1;
  for (let i = 0; i < sequences.length; ++i) {
    if (pending(i) === 0 || out[i]! > 0) continue;
    if (best < 0 || sequences[i]!.lastStep < sequences[best]!.lastStep) best = i;
  }
  return best;
}
