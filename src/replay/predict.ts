/** How fast would a model decode with so many experts resident? From a replay of recorded routing and rates of the machine. */
import { mapRecording } from '../experts/trace.js';
import { eventStallMs } from './machine-model.js';
import { replayEngine } from './replay-engine.js';
import type { MachineModel, TraceToReplay } from './types.js';

/** Tokens of a recording that are replayed at most: a quarter of it warms the cache, the rest is scored. */
const TOKENS_MAX = 400;

export interface ModelGeometry {
  readonly layers: number;
  readonly experts: number;
  readonly topK: number;
}

/** Misses an event (one layer of one token) in the mean, by the experts that are resident. */
export type MissesAt = (residentExperts: number) => number;

/** Even routing: what is resident is hit as often as anything else. Trained routers are kinder. */
export function evenMisses({ layers, experts, topK }: ModelGeometry): MissesAt {
  return (resident) => topK * (1 - Math.min(1, resident / (layers * experts)));
}

/** As recorded, mapped onto the model as `moestro bench --routing-trace` does. */
export function recordedMisses(trace: TraceToReplay, geometry: ModelGeometry): MissesAt {
  const { layers, experts, topK } = geometry;
  const mapped = mapRecording(trace.recording, geometry, trace.name);
  const tokens = Math.min(TOKENS_MAX, mapped.tokens);
  const ids = new Uint16Array(tokens * layers * topK);
  const weights = new Float32Array(topK);
  for (let event = 0; event < tokens * layers; ++event) {
    const own = ids.subarray(event * topK, (event + 1) * topK);
    mapped.routingFor(Math.floor(event / layers), event % layers, 1, own, weights);
  }
  const recording = { tokens, layers, topK, ids, weights: null, isRanked: true };
  return (resident) => {
    if (resident >= layers * experts) return 0;
    const { misses } = replayEngine({ ...trace, recording, experts }, 0, { slots: Math.max(1, resident) });
    const scored = misses.subarray((tokens >> 2) * layers);
    return scored.reduce((sum, count) => sum + count, 0) / scored.length;
  };
}

/** Milliseconds that compute waits in an event of `misses` misses in the mean. */
export function meanStallMs(misses: number, topK: number, machine: MachineModel): number {
  const below = Math.floor(misses);
  const above = Math.min(topK, below + 1);
  const share = misses - below;
  return (1 - share) * eventStallMs(below, topK, machine) + share * eventStallMs(above, topK, machine);
}

/**
 * The disk's rate in bytes a millisecond at which the model of the machine waits as long as was measured.
 *
 * @param stallMs of one event.
 */
export function fitDiskRate(misses: number, topK: number, stallMs: number, machine: MachineModel): number {
  let slow = 1;
  let fast = 1e9;
  for (let i = 0; i < 80; ++i) {
    const middle = Math.sqrt(slow * fast);
    if (meanStallMs(misses, topK, { ...machine, diskBytesPerMs: middle }) > stallMs) slow = middle;
    else fast = middle;
  }
  return Math.sqrt(slow * fast);
}

/**
 * The index of the point after which more memory buys least: the one furthest above the line from the first to the last.
 *
 * @see Satopää et al., Finding a "kneedle" in a haystack, 2011.
 */
export function kneeOf(x: readonly number[], y: readonly number[]): number {
  const [width, height] = [x.at(-1)! - x[0]!, y.at(-1)! - y[0]!];
  if (x.length < 3 || width <= 0 || height <= 0) return 0;
  const above = x.map((at, i) => (y[i]! - y[0]!) / height - (at - x[0]!) / width);
  return above.indexOf(Math.max(...above));
}
