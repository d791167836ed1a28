/**
 * Which prefixes are known? A tree of KV blocks: a node is a block's tokens after those of its parents, under a root for
 * all that keys and values depend on besides tokens. Pure data; who holds memory or a record is said by the nodes, and
 * changed by prefix-cache.ts.
 *
 * The tree of blocks follows vLLM's hash chains (arXiv:2309.06180); the search for a longest prefix within a block is SGLang's
 * (arXiv:2312.07104) and matters more here: 31 tokens computed again ask for most experts of a layer.
 */
import { createHash } from 'node:crypto';

export interface PrefixNode {
  /** 32 hex digits: a hash of the root and of all tokens up to the end of this block. */
  readonly key: string;
  /** Null for a root, and for a node that is known no more. */
  parent: PrefixNode | null;
  /** Blocks before this one; -1 for a root. */
  readonly depth: number;
  /** At most as many as a block holds; fewer only in a node without children. */
  readonly tokens: readonly number[];
  /** In order of their tokens: where many requests begin with one template, a node has thousands. */
  readonly children: PrefixNode[];
  /** The KV block that holds it, -1 for none. */
  block: number;
  /** A file holds it. */
  isStored: boolean;
}

export interface PrefixMatch {
  /** Whole blocks, in order. */
  readonly whole: readonly PrefixNode[];
  /** The block after them that begins as the tokens go on, and for how many tokens. */
  readonly partial: { readonly node: PrefixNode; readonly count: number } | null;
}

/** Children looked at on either side of where the tokens belong, for one that a KV block holds. */
const NEIGHBOURS_MAX = 64;

const NOTHING: PrefixMatch = { whole: [], partial: null };

/** @param parts bytes or text; where one ends is part of the key. */
export function keyOf(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) {
    const bytes = typeof part === 'string' ? Buffer.from(part) : part;
    hash.update(Buffer.from(Uint32Array.of(bytes.length).buffer)).update(bytes);
  }
  return hash.digest('hex').slice(0, 32);
}

export const blockKey = (parentKey: string, tokens: readonly number[]): string =>
  keyOf(parentKey, new Uint8Array(Int32Array.from(tokens).buffer));

export class PrefixIndex {
  readonly #blockTokens: number;
  readonly #roots = new Map<string, PrefixNode>();

  constructor(blockTokens: number) {
    this.#blockTokens = blockTokens;
  }

  /**
   * The longest known prefix of the first `limit` tokens.
   *
   * @param isHeld only of what a KV block holds, as far as the nearest NEIGHBOURS_MAX blocks tell.
   */
  match(rootKey: string, tokens: readonly number[], limit: number, isHeld = false): PrefixMatch {
    let node = this.#roots.get(rootKey);
    if (node === undefined) return NOTHING;
    const whole: PrefixNode[] = [];
    for (let at = 0; ; at += this.#blockTokens) {
      const next = tokens.slice(at, Math.min(limit, at + this.#blockTokens));
      const { child, count }: Longest = longestChild(node, next, isHeld);
      if (child === null) return { whole, partial: null };
      if (count < this.#blockTokens) return { whole, partial: { node: child, count } };
      whole.push(child);
      node = child;
    }
  }

  /** The node of exactly these tokens after `parent`'s, if it is known. */
  child(parent: PrefixNode, tokens: readonly number[]): PrefixNode | undefined {
    const found = parent.children[placeOf(parent.children, tokens)];
    return found !== undefined && compare(found.tokens, tokens) === 0 ? found : undefined;
  }

  /** The first child of `parent` that begins with `tokens`. */
  beginning(parent: PrefixNode, tokens: readonly number[]): PrefixNode | undefined {
    const found = parent.children[placeOf(parent.children, tokens)];
    return found !== undefined && commonLength(found.tokens, tokens) === tokens.length ? found : undefined;
  }

  root(key: string): PrefixNode {
    const found = this.#roots.get(key) ?? newNode(key, null, -1, []);
    this.#roots.set(key, found);
    return found;
  }

  /** A child that was not known; the caller says at once where it is held. */
  add(parent: PrefixNode, tokens: readonly number[], key = blockKey(parent.key, tokens)): PrefixNode {
    const node = newNode(key, parent, parent.depth + 1, tokens);
    parent.children.splice(placeOf(parent.children, tokens), 0, node);
    return node;
  }

  /** Children of `parent` in which `tokens` go on where they end: what they hold is held twice from now on. */
  outgrown(parent: PrefixNode, tokens: readonly number[]): readonly PrefixNode[] {
    const found: PrefixNode[] = [];
    for (let count = 1; count < tokens.length; ++count) {
      const node = this.child(parent, tokens.slice(0, count));
      if (node !== undefined) found.push(node);
    }
    return found;
  }

  /** Forgets a node and all that goes on from it; returns them, deepest first. */
  remove(node: PrefixNode): readonly PrefixNode[] {
    const { parent } = node;
    if (parent === null) return [];
    parent.children.splice(placeOf(parent.children, node.tokens), 1);
    if (parent.depth < 0 && parent.children.length === 0) this.#roots.delete(parent.key);
    const removed: PrefixNode[] = [node];
    for (let i = 0; i < removed.length; ++i) removed.push(...removed[i]!.children.splice(0));
    for (const one of removed) one.parent = null;
    return removed.reverse();
  }
}

interface Longest {
  readonly child: PrefixNode | null;
  readonly count: number;
}

/**
 * The child that begins as `tokens` for longest. Neighbours in order have most in common, and ever less the farther away; of those
 * with as much, one that a KV block holds, if it is near.
 */
function longestChild({ children }: PrefixNode, tokens: readonly number[], isHeld: boolean): Longest {
  const place = placeOf(children, tokens);
  let child: PrefixNode | null = null;
  let count = 0;
  for (const step of [1, -1]) {
    let at = step > 0 ? place : place - 1;
    for (let looks = 0; looks < NEIGHBOURS_MAX; ++looks, at += step) {
      const one = children[at];
      const common = one === undefined ? 0 : commonLength(one.tokens, tokens);
      if (one === undefined || common === 0 || common < count) break;
      const isBetter = common > count || (child !== null && child.block < 0 && one.block >= 0);
      if (!isBetter || (isHeld && one.block < 0)) continue;
      child = one;
      count = common;
      if (one.block >= 0) break;
    }
  }
  return { child, count };
}

/** Index of the first child that does not come before `tokens`. */
function placeOf(children: readonly PrefixNode[], tokens: readonly number[]): number {
  let low = 0;
  let high = children.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compare(children[middle]!.tokens, tokens) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Below zero where `one` comes first: by the first token that differs, and what ends before what goes on. */
function compare(one: readonly number[], other: readonly number[]): number {
  const count = commonLength(one, other);
  if (count === one.length || count === other.length) return one.length - other.length;
  return one[count]! - other[count]!;
}

/** Tokens that both begin with. */
function commonLength(one: readonly number[], other: readonly number[]): number {
  const end = Math.min(one.length, other.length);
  let count = 0;
  while (count < end && one[count] === other[count]) ++count;
  return count;
}

const newNode = (key: string, parent: PrefixNode | null, depth: number, tokens: readonly number[]): PrefixNode => ({
  key,
  parent,
  depth,
  tokens,
  children: [],
  block: -1,
  isStored: false,
});
