/**
 * The optimum of a cache that knows the future: the expert used again last gives way, or the one just read when that is it.
 * The same whether experts of a layer come one by one or together, since it never evicts what is about to be used.
 *
 * @see Belady, A study of replacement algorithms for a virtual-storage computer, 1966.
 */
import { slotsOf } from './replay-cache.js';
import type { CacheRun, Scope, TraceToReplay } from './types.js';

/** Later than any access. */
const NEVER = 0x7fffffff;

export function replayBelady(trace: TraceToReplay, share: number, scope: Scope): CacheRun {
  const { recording, experts } = trace;
  const { tokens, layers, topK, ids } = recording;
  const slots = slotsOf(share, scope, layers, experts);
  const perToken = layers * topK;
  const keyAt = (at: number): number => Math.floor((at % perToken) / topK) * experts + ids[at]!;
  const nextUse = new Int32Array(ids.length);
  const seen = new Int32Array(layers * experts).fill(NEVER);
  for (let at = ids.length - 1; at >= 0; --at) {
    const key = keyAt(at);
    nextUse[at] = seen[key]!;
    seen[key] = at;
  }
  const caches = Array.from({ length: scope === 'global' ? 1 : layers }, () => ({
    held: 0,
    heap: new FarthestFirst(),
  }));
  /** Next use of each expert that is held; -1 for one that is not. */
  const heldUntil = new Int32Array(layers * experts).fill(-1);
  const misses = new Uint16Array(tokens * layers);
  for (let at = 0; at < ids.length; ++at) {
    const key = keyAt(at);
    const event = Math.floor(at / topK);
    const cache = caches[scope === 'global' ? 0 : event % layers]!;
    if (heldUntil[key]! < 0) {
      misses[event] = misses[event]! + 1;
      if (cache.held >= slots) {
        while (cache.heap.size > 0 && heldUntil[cache.heap.topKey] !== cache.heap.topUse) cache.heap.pop();
        if (cache.heap.size === 0 || cache.heap.topUse <= nextUse[at]!) continue;
        heldUntil[cache.heap.topKey] = -1;
        cache.heap.pop();
      } else {
        ++cache.held;
      }
    }
    heldUntil[key] = nextUse[at]!;
    cache.heap.push(nextUse[at]!, key);
  }
  return { misses, slots: slots * caches.length };
}

/** A binary heap of (next use, key), the farthest on top; entries that no longer hold are left to the caller. */
class FarthestFirst {
  readonly #uses: number[] = [];
  readonly #keys: number[] = [];

  get size(): number {
    return this.#uses.length;
  }

  get topUse(): number {
    return this.#uses[0]!;
  }

  get topKey(): number {
    return this.#keys[0]!;
  }

  push(use: number, key: number): void {
    let at = this.#uses.length;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.#uses[parent]! >= use) break;
      this.#uses[at] = this.#uses[parent]!;
      this.#keys[at] = this.#keys[parent]!;
      at = parent;
    }
    this.#uses[at] = use;
    this.#keys[at] = key;
  }

  pop(): void {
    const use = this.#uses.pop()!;
    const key = this.#keys.pop()!;
    const size = this.#uses.length;
    if (size === 0) return;
    let at = 0;
    for (let child = 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && this.#uses[child + 1]! > this.#uses[child]!) ++child;
      if (this.#uses[child]! <= use) break;
      this.#uses[at] = this.#uses[child]!;
      this.#keys[at] = this.#keys[child]!;
      at = child;
    }
    this.#uses[at] = use;
    this.#keys[at] = key;
  }
}
