/** Runs a trace through caches that choose victims by the past. */
import { Past } from './past.js';
import type { ReplayPolicy } from './policies.js';
import type { CacheRun, Counting, Scope, TraceToReplay } from './types.js';

/** Slots of each cache: the share of all experts, or of a layer's. */
export function slotsOf(share: number, scope: Scope, layers: number, experts: number): number {
  return Math.round(share * (scope === 'global' ? layers * experts : experts));
}

/** @param share of all experts, 0 to 1. */
export function replayCache(
  trace: TraceToReplay,
  share: number,
  policy: ReplayPolicy,
  scope: Scope,
  counting: Counting,
): CacheRun {
  const { recording, experts } = trace;
  const { tokens, layers, topK, ids } = recording;
  const slots = slotsOf(share, scope, layers, experts);
  const caches = Array.from({ length: scope === 'global' ? 1 : layers }, () => new Int32Array(slots));
  const held = new Int32Array(caches.length);
  const placeOf = new Int32Array(layers * experts).fill(-1);
  const candidates = new Int32Array(slots);
  const past = new Past(layers, experts, policy.halfLife);
  const misses = new Uint16Array(tokens * layers);
  const inUse = new Uint8Array(layers * experts);

  const admit = (key: number, layer: number): void => {
    const index = scope === 'global' ? 0 : layer;
    const cache = caches[index]!;
    let place = held[index]!;
    if (place === slots) {
      let count = 0;
      for (let i = 0; i < slots; ++i) if (inUse[cache[i]!] === 0) candidates[count++] = cache[i]!;
      const victim = policy.chooseVictim!(candidates, count, past, layer);
      // Fewer slots than one event needs: what finds none is used and not kept.
      if (victim < 0) return;
      place = placeOf[victim]!;
      placeOf[victim] = -1;
    } else {
      held[index] = place + 1;
    }
    cache[place] = key;
    placeOf[key] = place;
    past.sinceAdmission[key] = 1;
  };

  for (let token = 0; token < tokens; ++token) {
    past.advance();
    for (let layer = 0; layer < layers; ++layer) {
      const event = token * layers + layer;
      const first = event * topK;
      if (counting === 'access') {
        for (let at = first; at < first + topK; ++at) {
          const key = layer * experts + ids[at]!;
          past.record(key);
          if (placeOf[key]! >= 0) continue;
          misses[event] = misses[event]! + 1;
          admit(key, layer);
        }
        continue;
      }
      // The best rank counts as the most recent: it is reused most.
      for (let at = first + topK - 1; at >= first; --at) {
        const key = layer * experts + ids[at]!;
        past.record(key);
        inUse[key] = 1;
        if (placeOf[key]! < 0) misses[event] = misses[event]! + 1;
      }
      for (let at = first; at < first + topK; ++at) {
        const key = layer * experts + ids[at]!;
        if (placeOf[key]! < 0) admit(key, layer);
      }
      for (let at = first; at < first + topK; ++at) inUse[layer * experts + ids[at]!] = 0;
    }
  }
  return { misses, slots: slots * caches.length };
}
