/** Sets of Unicode characters as sorted ranges, and the UTF-8 bytes that spell them. */
import { bytes, choice, type Expression, sequence } from './expression.js';

/** Inclusive ranges in ascending order that neither touch nor overlap. Surrogates never belong to a set. */
export type CodePoints = readonly (readonly [first: number, last: number])[];

export const CODE_POINT_MAX = 0x10ffff;
export const ALL: CodePoints = [
  [0, 0xd7ff],
  [0xe000, CODE_POINT_MAX],
];

export function codePoints(ranges: readonly (readonly [number, number])[]): CodePoints {
  const sorted = ranges.filter(([first, last]) => first <= last).sort((a, b) => a[0] - b[0]);
  const merged: [number, number][] = [];
  for (const [first, last] of sorted) {
    const before = merged.at(-1);
    if (before !== undefined && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else merged.push([first, last]);
  }
  return intersect(merged, ALL);
}

export const ofText = (text: string): CodePoints =>
  codePoints([...text].map((char) => [char.codePointAt(0)!, char.codePointAt(0)!] as const));

export const union = (a: CodePoints, b: CodePoints): CodePoints => codePoints([...a, ...b]);

export function intersect(a: CodePoints, b: CodePoints): CodePoints {
  const both: [number, number][] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const first = Math.max(a[i]![0], b[j]![0]);
    const last = Math.min(a[i]![1], b[j]![1]);
    if (first <= last) both.push([first, last]);
    if (a[i]![1] < b[j]![1]) ++i;
    else ++j;
  }
  return both;
}

export function complement(set: CodePoints): CodePoints {
  const rest: [number, number][] = [];
  let next = 0;
  for (const [first, last] of set) {
    if (first > next) rest.push([next, first - 1]);
    next = last + 1;
  }
  if (next <= CODE_POINT_MAX) rest.push([next, CODE_POINT_MAX]);
  return intersect(rest, ALL);
}

export const minus = (a: CodePoints, b: CodePoints): CodePoints => intersect(a, complement(b));

export const has = (set: CodePoints, point: number): boolean =>
  set.some(([first, last]) => point >= first && point <= last);

/** Last code point of UTF-8's lengths 1 to 4. */
const LENGTH_ENDS = [0x7f, 0x7ff, 0xffff, CODE_POINT_MAX];

/** The UTF-8 spellings of a set, as sequences of byte ranges. */
export function utf8(set: CodePoints): Expression {
  const options: Expression[] = [];
  const ascii: (readonly [number, number])[] = [];
  for (const [first, last] of set) {
    let from = first;
    for (const end of LENGTH_ENDS) {
      if (from > last || from > end) continue;
      const to = Math.min(last, end);
      if (end === 0x7f) ascii.push([from, to]);
      else addSequences(from, to, options);
      from = to + 1;
    }
  }
  if (ascii.length > 0) options.unshift(bytes(ascii));
  return choice(options);
}

/** Splits a range of characters of one length until each part is a product of byte ranges. */
function addSequences(first: number, last: number, out: Expression[]): void {
  const low = encode(first);
  const high = encode(last);
  // From the last byte up: where the lower bytes do not span all of 80..BF, cut there.
  for (let tail = 1; tail < low.length; ++tail) {
    const span = 64 ** tail;
    const isSameHead = Math.floor(first / span) === Math.floor(last / span);
    if (isSameHead) continue;
    if (first % span !== 0) {
      const cut = Math.floor(first / span) * span + span - 1;
      addSequences(first, cut, out);
      addSequences(cut + 1, last, out);
      return;
    }
    if (last % span !== span - 1) {
      const cut = Math.floor(last / span) * span - 1;
      addSequences(first, cut, out);
      addSequences(cut + 1, last, out);
      return;
    }
  }
  out.push(sequence(low.map((byte, i) => bytes([[byte, high[i]!]]))));
}

function encode(point: number): number[] {
  if (point <= 0x7f) return [point];
  if (point <= 0x7ff) return [0xc0 | (point >> 6), 0x80 | (point & 63)];
  if (point <= 0xffff) return [0xe0 | (point >> 12), 0x80 | ((point >> 6) & 63), 0x80 | (point & 63)];
  return [0xf0 | (point >> 18), 0x80 | ((point >> 12) & 63), 0x80 | ((point >> 6) & 63), 0x80 | (point & 63)];
}
