/**
 * In which order do the symbols of one piece merge?
 *
 * The pair with the lowest rank merges first, the leftmost among equals, until no adjacent pair is in the table. A
 * heap of candidate pairs over a linked list of symbols makes that O(n log n) for a piece of n symbols, so one letter
 * a hundred thousand times is no attack. Method: byte-pair encoding (Sennrich et al., arXiv:1508.07909).
 */

/** Ranks of pairs of token ids, in open addressing: 12 bytes a pair where a Map of strings takes over 100. */
export class MergeTable {
  private readonly lefts: Int32Array;
  private readonly rights: Int32Array;
  private readonly ranks: Int32Array;
  private readonly mask: number;
  private readonly merged: Int32Array;

  /** @param count merges that will be set, ranks 0 to count - 1. */
  constructor(count: number) {
    let capacity = 16;
    while (capacity < 2 * count) capacity *= 2;
    this.mask = capacity - 1;
    this.lefts = new Int32Array(capacity).fill(-1);
    this.rights = new Int32Array(capacity);
    this.ranks = new Int32Array(capacity);
    this.merged = new Int32Array(count);
  }

  private place(left: number, right: number): number {
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    hash ^= hash >>> 15;
    let at = hash & this.mask;
    while (this.lefts[at] !== -1 && (this.lefts[at] !== left || this.rights[at] !== right)) at = (at + 1) & this.mask;
    return at;
  }

  /** A pair listed twice keeps its last rank, as in the reference. */
  set(left: number, right: number, rank: number, mergedId: number): void {
    const at = this.place(left, right);
    this.lefts[at] = left;
    this.rights[at] = right;
    this.ranks[at] = rank;
    this.merged[rank] = mergedId;
  }

  /** -1 when the two do not merge. */
  rank(left: number, right: number): number {
    const at = this.place(left, right);
    return this.lefts[at] === -1 ? -1 : this.ranks[at]!;
  }

  mergedId(rank: number): number {
    return this.merged[rank]!;
  }
}

/** Candidates are one number, rank * 2^28 + position: exact in a double up to rank 2^25, ordered as wanted. */
const POSITION_SPAN = 2 ** 28;

/** Symbols whose working memory is kept between calls; longer pieces get memory of their own. */
const KEPT_SYMBOLS = 4096;

class Workspace {
  readonly next: Int32Array;
  readonly previous: Int32Array;
  /** At most one candidate per symbol at first, and one more per merge: a merge takes one and adds at most two. */
  readonly heap: Float64Array;

  constructor(symbols: number) {
    this.next = new Int32Array(symbols);
    this.previous = new Int32Array(symbols);
    this.heap = new Float64Array(2 * symbols + 2);
  }
}

export class Merger {
  private readonly table: MergeTable;
  private readonly kept = new Workspace(KEPT_SYMBOLS);

  constructor(table: MergeTable) {
    this.table = table;
  }

  /**
   * Merges in place.
   *
   * @param symbols Int32Array of token ids, one per byte or character; overwritten.
   * @param count how many of them there are.
   * @returns how many token ids stand at the front of `symbols` afterwards.
   */
  merge(symbols: Int32Array, count: number): number {
    if (count < 2) return count;
    const { next, previous, heap } = count <= KEPT_SYMBOLS ? this.kept : new Workspace(count);
    const table = this.table;
    let size = 0;

    const push = (position: number): void => {
      const rank = table.rank(symbols[position]!, symbols[next[position]!]!);
      if (rank < 0) return;
      const key = rank * POSITION_SPAN + position;
      let at = size++;
      while (at > 0) {
        const parent = (at - 1) >> 1;
        if (heap[parent]! <= key) break;
        heap[at] = heap[parent]!;
        at = parent;
      }
      heap[at] = key;
    };

    const pop = (): number => {
      const top = heap[0]!;
      const last = heap[--size]!;
      let at = 0;
      for (let child = 1; child < size; child = 2 * at + 1) {
        if (child + 1 < size && heap[child + 1]! < heap[child]!) ++child;
        if (heap[child]! >= last) break;
        heap[at] = heap[child]!;
        at = child;
      }
      heap[at] = last;
      return top;
    };

    for (let i = 0; i < count; ++i) {
      next[i] = i + 1 < count ? i + 1 : -1;
      previous[i] = i - 1;
    }
    for (let i = 0; i + 1 < count; ++i) push(i);

    while (size > 0) {
      const key = pop();
      const rank = Math.floor(key / POSITION_SPAN);
      const position = key - rank * POSITION_SPAN;
      const right = next[position]!;
      if (symbols[position] === -1 || right === -1) continue;
      const current = table.rank(symbols[position]!, symbols[right]!);
      // A candidate may be out of date; like the reference, what counts is whether it would still make the same token.
      if (current < 0 || table.mergedId(current) !== table.mergedId(rank)) continue;
      symbols[position] = table.mergedId(rank);
      symbols[right] = -1;
      const after = next[right]!;
      next[position] = after;
      if (after !== -1) previous[after] = position;
      if (previous[position] !== -1) push(previous[position]!);
      if (after !== -1) push(position);
    }

    let out = 0;
    for (let i = 0; i < count; ++i) if (symbols[i] !== -1) symbols[out++] = symbols[i]!;
    return out;
  }
}
