/**
 * Least frequently, then least recently used, of a sample: fewest uses since admission among 16 of the cache's slots.
 * What WASTE ships (github.com/sqliteai/waste), written anew from its description.
 */
import type { Past } from './past.js';

const SAMPLE = 16;

export function lfru(candidates: Int32Array, count: number, past: Past): number {
  let victim = -1;
  for (let i = 0; i < Math.min(count, SAMPLE); ++i) {
    // The sample depends on the number of accesses only: a run can be repeated.
    const key = candidates[count <= SAMPLE ? i : mix(past.accesses * SAMPLE + i) % count]!;
    if (victim < 0 || isColder(key, victim, past)) victim = key;
  }
  return victim;
}

function isColder(a: number, b: number, past: Past): boolean {
  const uses = past.sinceAdmission[a]! - past.sinceAdmission[b]!;
  return uses !== 0 ? uses < 0 : past.lastUse[a]! < past.lastUse[b]!;
}

/** The finaliser of MurmurHash3. */
function mix(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
