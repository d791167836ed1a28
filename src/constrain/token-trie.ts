/**
 * The vocabulary as a tree of bytes, laid out in the order of a walk: whether an automaton takes a beginning is asked once
 * for all tokens that share it, and a refused beginning skips all of them in one step (as in llguidance's toktrie).
 */
import type { TokenBytes } from './program.js';

export class TokenTrie {
  readonly vocabSize: number;
  readonly tokenBytes: TokenBytes;
  /** By node, in the order of the walk: its byte, its depth, the node after all that lie below it. */
  readonly byte: Uint8Array;
  readonly depth: Uint16Array;
  readonly after: Int32Array;
  /** The lowest token that ends here, or -1; `sameAs` goes on to others of the same bytes. */
  readonly token: Int32Array;
  /** Bytes of the longest token at or below the node. */
  readonly deepest: Uint16Array;
  /** By token: the next one of the same bytes, or -1. */
  readonly sameAs: Int32Array;
  /** Bytes of the longest token. */
  readonly longest: number;

  constructor(tokenBytes: TokenBytes) {
    const { bytes, offsets } = tokenBytes;
    this.tokenBytes = tokenBytes;
    this.vocabSize = offsets.length - 1;
    const lengthOf = (id: number): number => offsets[id + 1]! - offsets[id]!;
    let nodesMax = 0;
    const ids: number[] = [];
    for (let id = 0; id < this.vocabSize; ++id) {
      const length = lengthOf(id);
      if (length === 0 || length > 0xffff) continue;
      ids.push(id);
      nodesMax += length;
    }
    const sorted = sortByBytes(Int32Array.from(ids), tokenBytes);
    this.sameAs = new Int32Array(this.vocabSize).fill(-1);
    const byte = new Uint8Array(nodesMax);
    const depth = new Uint16Array(nodesMax);
    const after = new Int32Array(nodesMax);
    const token = new Int32Array(nodesMax);
    const deepest = new Uint16Array(nodesMax);
    /** Nodes of the newest token, by depth. */
    const path: number[] = [];
    let nodes = 0;
    let previous = -1;
    for (const id of sorted) {
      const from = offsets[id]!;
      const length = lengthOf(id);
      let shared = 0;
      while (shared < path.length && shared < length && byte[path[shared]!] === bytes[from + shared]) ++shared;
      if (shared === length && path.length === length) {
        this.sameAs[previous] = id;
        previous = id;
        continue;
      }
      while (path.length > shared) after[path.pop()!] = nodes;
      for (let i = shared; i < length; ++i) {
        byte[nodes] = bytes[from + i]!;
        depth[nodes] = i + 1;
        token[nodes] = i + 1 === length ? id : -1;
        path.push(nodes++);
      }
      for (const node of path) deepest[node] = Math.max(deepest[node]!, length);
      previous = id;
    }
    while (path.length > 0) after[path.pop()!] = nodes;
    this.byte = byte.slice(0, nodes);
    this.depth = depth.slice(0, nodes);
    this.after = after.slice(0, nodes);
    this.token = token.slice(0, nodes);
    this.deepest = deepest.slice(0, nodes);
    this.longest = this.deepest.reduce((most, length) => Math.max(most, length), 0);
  }
}

/** Ids in the order of their bytes, equal ones by id. */
function sortByBytes(ids: Int32Array, { bytes, offsets }: TokenBytes): Int32Array {
  // The first six bytes as one number decide nearly always.
  const heads = new Float64Array(offsets.length - 1);
  for (const id of ids) {
    let head = 0;
    for (let i = 0; i < 6; ++i) {
      const at = offsets[id]! + i;
      head = head * 257 + (at < offsets[id + 1]! ? bytes[at]! + 1 : 0);
    }
    heads[id] = head;
  }
  return ids.sort((a, b) => {
    if (heads[a] !== heads[b]) return heads[a]! < heads[b]! ? -1 : 1;
    const lengthA = offsets[a + 1]! - offsets[a]!;
    const lengthB = offsets[b + 1]! - offsets[b]!;
    for (let i = 6; i < lengthA && i < lengthB; ++i) {
      const difference = bytes[offsets[a]! + i]! - bytes[offsets[b]! + i]!;
      if (difference !== 0) return difference;
    }
    return lengthA - lengthB || a - b;
  });
}
