/** What is worth keeping, what is worth writing, and when: pure rules over plain numbers. */

/** KV blocks serve as expert slots while nobody uses them, so kept prefixes leave half of them alone unless told otherwise. */
const KEPT_SHARE = 0.5;
/** Tokens in common from which on a prompt waits for another one that computes them already. */
const FOLLOWED_TOKENS_MIN = 32;
/** Below this a prefix saves nothing that a template's first words would not. */
export const KEPT_TOKENS_MIN = 8;
/** A record is written for prefixes from here on: with so many tokens nearly every expert of a layer is asked for again. */
export const STORED_TOKENS_MIN = 64;
/** Share of a step's time that writing a block after it may take. */
const WRITE_SHARE = 0.1;
/** Records of one store at most: each takes about a kilobyte of heap to be known. */
export const RECORDS_MAX = 8192;
/** Writes are accounted ahead by so many bytes, so that a crash counts too many and never too few. */
export const WRITE_AHEAD_BYTES = 64 << 20;

/**
 * Blocks that may be kept for later requests.
 *
 * @param limit KV blocks that may hold something now.
 * @param memoryBytes what was configured, null for a share.
 */
export function keptBlocksMax(limit: number, blockBytes: number, memoryBytes: number | null): number {
  if (memoryBytes === null) return Math.floor(limit * KEPT_SHARE);
  return Math.min(limit, Math.floor(memoryBytes / blockBytes));
}

/**
 * Whether a prompt waits while another computes what they have in common. Computed by both, it asks for as many experts, and takes the place
 * of tokens that nobody else computes; but what is not in common could run meanwhile, so it has to be the lesser part.
 *
 * @param common tokens that both begin with; `computed` of the one that would wait are known, of `length`.
 */
export const isWorthWaiting = (common: number, computed: number, length: number): boolean =>
  common - computed >= FOLLOWED_TOKENS_MIN && 2 * (common - computed) >= length - computed;

/** Whether records are read for `stored` tokens that are known in all, where memory alone has `held` of them. */
export const isWorthReading = (stored: number, held: number): boolean => stored - held >= KEPT_TOKENS_MIN;

/** Whether a block may be written after a step of `stepMs`; null while nothing runs. `writeMs` is what the last one took. */
export const mayWrite = (stepMs: number | null, writeMs: number): boolean =>
  stepMs === null || writeMs <= stepMs * WRITE_SHARE;

/** What was written on a day. */
export interface WrittenToday {
  readonly day: string;
  readonly bytes: number;
}

/** The account after `bytes` more on `day`, or null when they are more than a day may have. */
export function writeOn(written: WrittenToday, day: string, bytes: number, dailyBytes: number): WrittenToday | null {
  const total = (written.day === day ? written.bytes : 0) + bytes;
  return total > dailyBytes ? null : { day, bytes: total };
}

/** A record as its file's name and header tell it. */
export interface FoundRecord {
  readonly key: string;
  readonly parentKey: string;
  readonly depth: number;
  readonly tokens: readonly number[];
  /** When it was last of use, milliseconds. */
  readonly usedMs: number;
}

/**
 * Which records can be reached from a root, in the order in which they may be given up last: parents after what goes on
 * from them, and what was of use long ago first.
 *
 * @returns the others too: nobody can find them any more.
 */
export function orderRecords<T extends FoundRecord>(
  found: readonly T[],
): { readonly known: T[]; readonly orphans: T[] } {
  const byKey = new Map<string, T>();
  const orphans: T[] = [];
  for (const record of [...found].sort((a, b) => a.depth - b.depth)) {
    const parent = byKey.get(record.parentKey);
    if (record.depth === 0 || parent?.depth === record.depth - 1) byKey.set(record.key, record);
    else orphans.push(record);
  }
  const usedMs = new Map<string, number>();
  const known = [...byKey.values()].sort((a, b) => b.depth - a.depth);
  for (const { key, parentKey, usedMs: own } of known) {
    const latest = Math.max(own, usedMs.get(key) ?? 0);
    usedMs.set(key, latest);
    usedMs.set(parentKey, Math.max(latest, usedMs.get(parentKey) ?? 0));
  }
  known.sort((a, b) => usedMs.get(a.key)! - usedMs.get(b.key)! || b.depth - a.depth);
  return { known, orphans };
}
