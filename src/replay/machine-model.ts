/**
 * How long would the events of a replay take? A layer computes, its router chooses, its missing experts are read while the
 * resident ones run, and each missing one runs as it lands. Between layers the disk is idle: nobody knows yet what to ask for.
 *
 *     compute  |layer|hit|hit|hit|  |miss|   |miss|layer|...
 *     disk           |====== m0 ====|== m1 ==|
 *                                 stall    stall
 */
import type { CacheRun, MachineModel, TraceToReplay } from './types.js';

export interface Timeline {
  readonly stallMs: number;
  readonly totalMs: number;
}

/** Milliseconds of all tokens together. */
export function playTimeline(run: CacheRun, trace: TraceToReplay, machine: MachineModel): Timeline {
  const { tokens, layers, topK } = trace.recording;
  const byMisses: number[] = [];
  let stallMs = 0;
  for (let event = 0; event < tokens * layers; ++event) {
    const misses = run.misses[event]!;
    // A step of several tokens, told as an event of its first one, may miss more than a token uses.
    byMisses[misses] ??= eventStallMs(misses, Math.max(topK, misses), machine);
    stallMs += byMisses[misses];
  }
  return { stallMs, totalMs: stallMs + computeMs(trace, machine) };
}

/** Milliseconds of all tokens together if nothing was ever missing. */
export function computeMs({ recording }: TraceToReplay, machine: MachineModel): number {
  const { tokens, layers, topK } = recording;
  return tokens * layers * (machine.layerMs + topK * machine.expertMs);
}

/**
 * Milliseconds that compute waits in one event of `topK` experts of which `misses` are read, all asked for at once.
 *
 * @param lateMs when those of the misses land that are on their way already, ascending.
 * @param busyMs until then the disk is busy; the layer does not end before.
 */
export function eventStallMs(
  misses: number,
  topK: number,
  machine: MachineModel,
  lateMs: readonly number[] = [],
  busyMs = 0,
): number {
  const readMs = machine.expertBytes / machine.diskBytesPerMs;
  let now = (topK - misses) * machine.expertMs;
  let stallMs = 0;
  const waitFor = (landed: number): void => {
    stallMs += Math.max(0, landed - now);
    now = Math.max(now, landed);
  };
  const asked = misses - lateMs.length;
  for (const landed of lateMs) {
    waitFor(landed);
    now += machine.expertMs;
  }
  // The first byte is waited for while the disk is busy anyway.
  const busyBeyond = Math.max(0, busyMs - machine.diskLatencyMs);
  for (let read = 1; read <= asked; ++read) {
    // Reads share the rate, and `queueDepth` of them wait for their first byte together.
    waitFor(busyBeyond + machine.diskLatencyMs * Math.ceil(read / machine.queueDepth) + read * readMs);
    now += machine.expertMs;
  }
  waitFor(busyMs);
  return stallMs;
}
