/**
 * Keys and values of past requests for those to come: a sequence leaves its KV blocks here, and one that begins as an earlier
 * one takes them instead of computing them, which saves it a sweep of the experts. The one place where blocks are kept, found again, written
 * to the store and read back.
 *
 * Whole blocks are shared. Of a block that goes on otherwise, or is not full, the part in common is copied. Keys and values
 * depend on the bits that experts ran at, so there is a tree for each level policy: what `elastic` left serves `elastic` with the
 * same floors, whose answers depend on timing anyway, and nobody else.
 */
import { LRUCache } from 'lru-cache';
import type { LevelPolicy } from '../../experts/precision.js';
import type { NativeEngine } from '../../native/binding.js';
import type { BlockTable, KvBlocks } from '../kv-blocks.js';
import type { Sequence } from '../sequence.js';
import type { PrefixMetrics } from '../engine-metrics.js';
import { keyOf, PrefixIndex, type PrefixMatch, type PrefixNode } from './prefix-index.js';
import {
  type FoundRecord,
  isWorthReading,
  isWorthWaiting,
  KEPT_TOKENS_MIN,
  keptBlocksMax,
  STORED_TOKENS_MIN,
} from './prefix-policy.js';
import { PrefixReads, type StoredBlock } from './prefix-reads.js';
import type { PrefixStore } from './prefix-store.js';
import { PrefixWrites } from './prefix-writes.js';

export interface PrefixCacheParts {
  readonly native: Pick<NativeEngine, 'copyKv'>;
  readonly blocks: KvBlocks;
  /** Stands for all that keys and values depend on besides tokens and levels. */
  readonly modelKey: string;
  readonly blockBytes: number;
  /** Memory that kept blocks may take, null for a share of the KV cache. */
  readonly memoryBytes: number | null;
  /** Null without a folder. */
  readonly opened: { readonly store: PrefixStore; readonly found: readonly FoundRecord[] } | null;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

/** Of an engine that keeps nothing. */
export const NO_PREFIXES: PrefixMetrics = {
  lookups: 0,
  hits: 0,
  tokensReused: 0,
  tokensRestored: 0,
  evictions: 0,
  keptBytes: 0,
  storedBytes: 0,
  storeWrittenBytes: 0,
  storeReadBytes: 0,
  storeEvictions: 0,
  storeRejected: 0,
};

export class PrefixCache {
  readonly #parts: PrefixCacheParts;
  readonly #store: PrefixStore | null;
  readonly #index: PrefixIndex;
  /** Nodes with a KV block. What goes on from a node is never used after it, so parents outlive it. */
  readonly #kept: LRUCache<string, PrefixNode>;
  readonly #writes: PrefixWrites | null;
  readonly #reads: PrefixReads | null;
  readonly #rootKeys = new WeakMap<LevelPolicy, string>();
  #lookups = 0;
  #hits = 0;
  #tokensReused = 0;
  #tokensRestored = 0;
  #evictions = 0;

  constructor(parts: PrefixCacheParts) {
    const { blocks, opened } = parts;
    this.#parts = parts;
    this.#index = new PrefixIndex(blocks.blockTokens);
    this.#kept = new LRUCache({ max: blocks.total });
    blocks.reclaim = () => void this.#giveUpIdle();
    this.#store = opened?.store ?? null;
    this.#writes = opened === null ? null : new PrefixWrites(opened.store, parts.now);
    this.#reads = opened === null ? null : new PrefixReads((node) => opened.store.fetch(node));
    if (opened === null) return;
    this.#adopt(opened.store, opened.found);
    opened.store.onEvicted = (node) => {
      if (node.block < 0) this.#forget(node);
    };
  }

  /** A stored block has come, which `catchUp` puts into place. */
  get hasLanded(): boolean {
    return this.#reads?.hasLanded ?? false;
  }

  set onLanded(listener: () => void) {
    if (this.#reads !== null) this.#reads.onLanded = listener;
  }

  /**
   * Gives a sequence that has nothing yet what is known of its tokens; the last one it computes itself, for its logits. What has to
   * come from the store it waits for: `catchUp`.
   */
  restore(sequence: Sequence): void {
    if (!mayReuse(sequence)) return;
    ++this.#lookups;
    this.#find(sequence);
    this.#countReuse(sequence, 0);
  }

  #countReuse({ computed }: Sequence, before: number): void {
    if (before === 0 && computed > 0) ++this.#hits;
    // What it had may have been given up meanwhile.
    this.#tokensReused += Math.max(0, computed - before);
  }

  /** What is known of a sequence's tokens goes into its empty table. */
  #find(sequence: Sequence): void {
    const { blocks } = this.#parts;
    const { table, tokens } = sequence;
    const { whole, partial } = this.#match(this.#rootKey(sequence.policy), tokens);
    const last = partial?.node ?? whole.at(-1);
    if (last === undefined) return;
    this.#touch(last);
    for (const node of whole) {
      if (node.block < 0) break;
      blocks.share(table, node.block);
      sequence.lastKept = node;
    }
    sequence.computed = table.count * blocks.blockTokens;
    const rest = whole.slice(table.count).map((node) => storedBlock(node, blocks.blockTokens));
    if (partial !== null && (rest.length > 0 || partial.node.block < 0)) {
      rest.push(storedBlock(partial.node, partial.count));
    } else if (partial !== null && this.#copy(partial.node, table)) {
      sequence.computed += partial.count;
    }
    if (rest.length > 0) sequence.restoring = { blocks: rest, next: 0 };
  }

  /** The longest prefix of the tokens but the last; what memory has alone, where the store would bring next to nothing more. */
  #match(rootKey: string, tokens: readonly number[]): PrefixMatch {
    const { blockTokens } = this.#parts.blocks;
    const match = this.#index.match(rootKey, tokens, tokens.length - 1);
    if (match.whole.every(isHeld) && (match.partial === null || isHeld(match.partial.node))) return match;
    const held = this.#index.match(rootKey, tokens, tokens.length - 1, true);
    return isWorthReading(knownTokens(match, blockTokens), knownTokens(held, blockTokens)) ? match : held;
  }

  /**
   * Lets a sequence wait for one of those that run, where that one has, computes or reads enough of what both begin with; else for
   * the store, where that has something.
   */
  lookAhead(sequence: Sequence, running: readonly Sequence[]): void {
    if (!mayReuse(sequence)) return;
    const { tokens, computed, restoring } = sequence;
    const known = (restoring?.blocks ?? []).reduce((sum, { count }) => sum + count, computed);
    const rootKey = this.#rootKey(sequence.policy);
    for (const other of running) {
      // One that waits itself has nothing to give.
      if (other.ahead !== null || !mayKeep(other) || this.#rootKey(other.policy) !== rootKey) continue;
      const common = commonTokens(tokens, other.tokens);
      // What another reads already is not read twice.
      const own = other.restoring === null ? known : computed;
      if (common <= (sequence.ahead?.common ?? own)) continue;
      // What it has computed but not filled a block with is there at once.
      const isThere = other.computed >= common;
      if (!isThere && (other.generated > 0 || !isWorthWaiting(common, own, tokens.length))) continue;
      sequence.ahead = { sequence: other, common };
    }
    if (sequence.ahead !== null) sequence.restoring = null;
    else if (sequence.restoring !== null) this.#reads?.begin(sequence.restoring);
  }

  /**
   * Gives those that wait what has come from the store; and what others have computed, when it is all that they waited for or no
   * more will come.
   */
  catchUp(running: readonly Sequence[]): void {
    if (this.#reads !== null) this.#reads.hasLanded = false;
    for (const sequence of running) this.#putLanded(sequence);
    this.#followAhead(running);
    for (const { restoring } of running) if (restoring !== null) this.#reads?.begin(restoring);
  }

  /** What has come from the store for a sequence goes into its table, in order. */
  #putLanded(sequence: Sequence): void {
    const { restoring, computed: before } = sequence;
    if (restoring === null) return;
    const { blocks } = restoring;
    while (restoring.next < blocks.length && blocks[restoring.next]!.state === 'landed') {
      const isThere = this.#put(blocks[restoring.next]!, sequence);
      // Without it what comes after is of no use: the sequence computes the rest itself.
      restoring.next = isThere ? restoring.next + 1 : blocks.length;
    }
    if (restoring.next === blocks.length) sequence.restoring = null;
    this.#countReuse(sequence, before);
    if (sequence.lastStep < 0) sequence.cachedTokens = sequence.computed;
  }

  #followAhead(running: readonly Sequence[]): void {
    for (const sequence of running) {
      const { ahead } = sequence;
      if (ahead === null) continue;
      const { sequence: other, common } = ahead;
      const isThere = other.table.count > 0;
      if (isThere && other.computed < common) continue;
      const before = sequence.computed;
      this.#startAgain(sequence);
      if (isThere && sequence.computed < common) this.#copyFrom(other, common, sequence);
      this.#countReuse(sequence, before);
      if (sequence.lastStep < 0) sequence.cachedTokens = sequence.computed;
    }
  }

  /** As if it had just come: with what is known by now. */
  #startAgain(sequence: Sequence): void {
    const { blocks } = this.#parts;
    blocks.release(sequence.table);
    sequence.startOver();
    this.#find(sequence);
    blocks.grow(sequence.table, sequence.tokens.length);
  }

  /** The first `common` tokens as `other` has them, in blocks of the sequence's own where they are not shared. */
  #copyFrom(other: Sequence, common: number, sequence: Sequence): void {
    const { blocks, native } = this.#parts;
    const first = Math.floor(sequence.computed / blocks.blockTokens);
    const end = Math.ceil(common / blocks.blockTokens);
    // Short of memory: it computes the rest itself, when it can.
    if (sequence.table.count < end) return;
    sequence.restoring = null;
    for (let i = first; i < end; ++i) native.copyKv(other.table.blocks[i]!, sequence.table.blocks[i]!);
    sequence.computed = common;
  }

  /** Keeps the blocks that a sequence has filled; called after each of its steps, so that others find them while it runs. */
  keepWhole(sequence: Sequence): void {
    const { blockTokens } = this.#parts.blocks;
    const whole = Math.floor(sequence.computed / blockTokens);
    if (!mayKeep(sequence) || (sequence.lastKept?.depth ?? -1) + 1 >= whole) return;
    let node = sequence.lastKept;
    if (node === null || isForgotten(node)) node = this.#index.root(this.#rootKey(sequence.policy));
    for (let i = node.depth + 1; i < whole; ++i) {
      const tokens = sequence.tokens.slice(i * blockTokens, (i + 1) * blockTokens);
      const next = this.#extend(node, tokens, sequence.table.blocks[i]!);
      if (next === null) break;
      node = next;
      sequence.lastKept = node;
    }
  }

  /** Keeps all that a sequence has computed; called before it gives its blocks back. */
  keepAll(sequence: Sequence): void {
    if (!mayKeep(sequence) || sequence.computed < KEPT_TOKENS_MIN) return;
    const { blockTokens } = this.#parts.blocks;
    this.keepWhole(sequence);
    const whole = Math.floor(sequence.computed / blockTokens);
    let node = sequence.lastKept;
    if (node === null || isForgotten(node)) node = this.#index.root(this.#rootKey(sequence.policy));
    const rest = sequence.tokens.slice(whole * blockTokens, sequence.computed);
    if (rest.length > 0 && node.depth + 1 === whole) {
      node = this.#index.beginning(node, rest) ?? this.#extend(node, rest, sequence.table.blocks[whole]!) ?? node;
    }
    if (node.depth < 0) return;
    this.#touch(node);
    if (sequence.computed >= STORED_TOKENS_MIN) this.#writes?.add(node);
  }

  /** Gives up what no sequence uses: blocks at or above the limit, whose memory is wanted back, and as many more as are too many. */
  shed(): void {
    const { blocks } = this.#parts;
    const above = [...this.#kept.values()].filter(({ block }) => block >= blocks.limit && blocks.isIdle(block));
    for (const node of above) if (node.block >= 0) this.#giveUp(node);
    while (blocks.used + blocks.idle > blocks.limit && this.#giveUpIdle());
    while (this.#kept.size > this.#most && this.#giveUpIdle());
  }

  /** As PrefixWrites.writeOne; nothing without a store. */
  writeOne(stepMs: number | null): boolean {
    return this.#writes?.writeOne(stepMs) ?? false;
  }

  close(isBroken: boolean): void {
    this.#writes?.close(isBroken);
  }

  metrics(): PrefixMetrics {
    const store = this.#store;
    return {
      lookups: this.#lookups,
      hits: this.#hits,
      tokensReused: this.#tokensReused,
      tokensRestored: this.#tokensRestored,
      evictions: this.#evictions,
      keptBytes: this.#kept.size * this.#parts.blockBytes,
      storedBytes: store?.bytes ?? 0,
      storeWrittenBytes: store?.writtenBytes ?? 0,
      storeReadBytes: store?.readBytes ?? 0,
      storeEvictions: store?.evictions ?? 0,
      storeRejected: store?.rejected ?? 0,
    };
  }

  get #most(): number {
    const { blocks, blockBytes, memoryBytes } = this.#parts;
    return keptBlocksMax(blocks.limit, blockBytes, memoryBytes);
  }

  #rootKey(policy: LevelPolicy): string {
    const known = this.#rootKeys.get(policy);
    if (known !== undefined) return known;
    const { levels, thresholds, isElastic } = policy;
    const bytes = new Uint8Array(thresholds.buffer, thresholds.byteOffset, thresholds.byteLength);
    const key = keyOf(this.#parts.modelKey, levels.join(), bytes, isElastic === true ? 'elastic' : 'fixed');
    this.#rootKeys.set(policy, key);
    return key;
  }

  #adopt(store: PrefixStore, found: readonly FoundRecord[]): void {
    const nodes = new Map<string, PrefixNode>();
    for (const { key, parentKey, depth, tokens } of [...found].sort((a, b) => a.depth - b.depth)) {
      const parent = depth === 0 ? this.#index.root(parentKey) : nodes.get(parentKey);
      // Its parent had to go to make room.
      if (parent !== undefined) nodes.set(key, this.#index.add(parent, tokens, key));
    }
    for (const { key } of found) {
      const node = nodes.get(key);
      if (node !== undefined) store.adopt(node);
    }
  }

  /** The latest use of a node is one of its parents too, and theirs comes last. */
  #touch(node: PrefixNode): void {
    for (let at: PrefixNode | null = node; at !== null && at.depth >= 0; at = at.parent) {
      this.#kept.get(at.key);
      if (at.isStored) this.#store?.touch(at);
    }
  }

  /** A block of the table's own that holds what the node's does. */
  #copy(node: PrefixNode, table: BlockTable): boolean {
    const { blocks, native } = this.#parts;
    // Held meanwhile, or it might be given up to make room for its copy.
    const holder = { blocks: new Int32Array(1), count: 0 };
    blocks.share(holder, node.block);
    const isThere = blocks.grow(table, (table.count + 1) * blocks.blockTokens);
    if (isThere) native.copyKv(node.block, table.blocks[table.count - 1]!);
    blocks.release(holder);
    return isThere;
  }

  /** Puts a stored block into the sequence's own block for its next tokens; false when that is not to be had any more. */
  #put({ node, count }: StoredBlock, sequence: Sequence): boolean {
    const { blocks, native } = this.#parts;
    const at = sequence.computed / blocks.blockTokens;
    // Short of memory, or the record had to go to make room meanwhile.
    if (isForgotten(node) || sequence.table.count <= at) return false;
    const own = sequence.table.blocks[at]!;
    const isWhole = count === blocks.blockTokens;
    if (node.block >= 0) {
      // Somebody computed it meanwhile.
      native.copyKv(node.block, own);
    } else if (this.#store?.read(node, own) === true) {
      this.#tokensRestored += count;
      if (isWhole && this.#makeRoom() && !isForgotten(node)) this.#keep(node, own);
    } else {
      this.#forget(node);
      return false;
    }
    sequence.computed += count;
    if (isWhole) sequence.lastKept = node;
    return true;
  }

  /** The node of these tokens after `parent`'s, held by `block` unless another holds it; null when there is no room to keep it. */
  #extend(parent: PrefixNode, tokens: readonly number[], block: number): PrefixNode | null {
    const found = this.#index.child(parent, tokens);
    if (found !== undefined && found.block >= 0) return found;
    if (!this.#makeRoom()) return found ?? null;
    if (isForgotten(parent)) return null;
    const node = found !== undefined && !isForgotten(found) ? found : this.#index.add(parent, tokens);
    this.#keep(node, block);
    for (const one of this.#index.outgrown(parent, tokens)) this.#forget(one);
    return node;
  }

  #keep(node: PrefixNode, block: number): void {
    this.#parts.blocks.keep(block);
    node.block = block;
    this.#kept.set(node.key, node);
  }

  /** Room for one more kept block; false when all that are kept are in use too. */
  #makeRoom(): boolean {
    while (this.#kept.size >= this.#most) if (!this.#giveUpIdle()) return false;
    return true;
  }

  /** Gives up the block of longest ago that no sequence uses; false when there is none. */
  #giveUpIdle(): boolean {
    for (const node of this.#kept.rvalues()) {
      if (node === undefined || !this.#parts.blocks.isIdle(node.block)) continue;
      this.#giveUp(node);
      return true;
    }
    return false;
  }

  #giveUp(node: PrefixNode): void {
    ++this.#evictions;
    if (node.isStored) this.#drop(node);
    else this.#forget(node);
  }

  #drop(node: PrefixNode): void {
    if (node.block < 0) return;
    this.#kept.delete(node.key);
    this.#parts.blocks.drop(node.block);
    node.block = -1;
  }

  /** Neither memory nor store has it, nor what goes on from it, from now on. */
  #forget(node: PrefixNode): void {
    for (const one of this.#index.remove(node)) {
      this.#drop(one);
      this.#store?.remove(one);
      this.#writes?.drop(one);
    }
  }
}

/** Reports of the prompt's own tokens, evaluations and embeddings need every token computed. */
const mayReuse = ({ usesPrefixes, sampler, promptLogprobs }: Sequence): boolean =>
  usesPrefixes && sampler !== null && promptLogprobs === null;

/** What failed has no keys and values to rely on; texts that are only looked at are not gone on from. */
const mayKeep = ({ usesPrefixes, sampler, failure }: Sequence): boolean =>
  usesPrefixes && sampler !== null && failure === null;

/** Tokens that a prompt begins with as another does, but for its last one. */
function commonTokens(tokens: readonly number[], other: readonly number[]): number {
  const most = Math.min(tokens.length - 1, other.length);
  let count = 0;
  while (count < most && tokens[count] === other[count]) ++count;
  return count;
}

const knownTokens = ({ whole, partial }: PrefixMatch, blockTokens: number): number =>
  whole.length * blockTokens + (partial?.count ?? 0);

const storedBlock = (node: PrefixNode, count: number): StoredBlock => ({ node, count, state: 'waiting' });

const isHeld = ({ block }: PrefixNode): boolean => block >= 0;

const isForgotten = (node: PrefixNode): boolean => node.parent === null && node.depth >= 0;
