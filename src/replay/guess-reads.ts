/**
 * What becomes of reads on a guess? They are asked for when a layer has run and the disk is idle, and have the time until the
 * next router has spoken, `layerMs`. As in native/io, records are read in parts, and guesses have half of the queue: a part that
 * is with the disk is read to its end, so a wrong guess stops only where its parts are not yet there, and what was right goes on
 * before the reads that the plan asks for.
 *
 *     compute | attention, router  | hits | late guess | miss ...
 *     disk    |== g0 ==|== g1 .....|......|=== m0 ===|
 *                      stopped: no part of g1 beyond those handed over
 */
import type { MachineModel } from './types.js';

/** Parts of a record are about so long (native/io/read_queue.h). */
const PART_BYTES = 2 ** 20;

export interface SettledGuess {
  readonly isRight: boolean;
  /** When it is wholly read, in milliseconds after the router has spoken: not above 0 is in time; infinite when it was stopped. */
  readonly landedMs: number;
  readonly readBytes: number;
}

export interface SettledGuesses {
  readonly guesses: readonly SettledGuess[];
  /** Milliseconds that the disk is still busy with them. */
  readonly busyMs: number;
}

/** @param isRight of each guess, in the order in which they were asked for. */
export function settleGuesses(isRight: readonly boolean[], machine: MachineModel): SettledGuesses {
  const parts = Math.ceil(machine.expertBytes / PART_BYTES);
  const partMs = machine.expertBytes / parts / machine.diskBytesPerMs;
  const depth = Math.max(1, machine.queueDepth >> 1);
  const all = isRight.length * parts;
  // The queue is looked at twice: when the guesses are made, and when the router has spoken.
  const atOnce = Math.min(all, depth);
  const endOf = (part: number): number => machine.diskLatencyMs + (part + 1) * partMs - machine.layerMs;
  let ended = 0;
  while (ended < atOnce && endOf(ended) <= 0) ++ended;
  const handedOver = Math.min(all, ended + depth);

  let busyMs = atOnce === 0 ? 0 : Math.max(0, endOf(atOnce - 1));
  const next = (): number => {
    busyMs = Math.max(busyMs, machine.diskLatencyMs) + partMs;
    return busyMs;
  };
  const landed = isRight.map((_, guess) => {
    let endMs = Number.POSITIVE_INFINITY;
    for (let part = guess * parts; part < Math.min(handedOver, (guess + 1) * parts); ++part) {
      endMs = part < atOnce ? endOf(part) : next();
    }
    return endMs;
  });
  const guesses = isRight.map((right, guess): SettledGuess => {
    const begun = Math.min(parts, Math.max(0, handedOver - guess * parts));
    if (begun < parts && !right) {
      return { isRight: right, landedMs: Number.POSITIVE_INFINITY, readBytes: (begun / parts) * machine.expertBytes };
    }
    let landedMs = landed[guess]!;
    for (let part = begun; part < parts; ++part) landedMs = next();
    return { isRight: right, landedMs, readBytes: machine.expertBytes };
  });
  return { guesses, busyMs };
}
