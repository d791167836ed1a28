/** Blocks on their way to the store: one at a time, when there is time for it. */
import type { PrefixNode } from './prefix-index.js';
import { mayWrite } from './prefix-policy.js';
import type { PrefixStore } from './prefix-store.js';

/** How long the end of an engine may be put off by what is still to be written. */
const CLOSING_MS = 3000;

export class PrefixWrites {
  readonly #store: PrefixStore;
  /** Milliseconds, monotonic. */
  readonly #now: () => number;
  /** Parents first. */
  readonly #waiting = new Set<PrefixNode>();
  #lastMs = 0;

  constructor(store: PrefixStore, now: () => number) {
    this.#store = store;
    this.#now = now;
  }

  /** The node and all before it are to be written, as far as they are not. */
  add(last: PrefixNode): void {
    const path: PrefixNode[] = [];
    for (let at: PrefixNode | null = last; at !== null && at.depth >= 0; at = at.parent) path.push(at);
    for (const node of path.reverse()) if (!node.isStored) this.#waiting.add(node);
  }

  drop(node: PrefixNode): void {
    this.#waiting.delete(node);
  }

  /**
   * Writes one block, if one waits and there is time for it.
   *
   * @param stepMs what the step before took; null while nothing runs.
   * @returns true while there is more to write.
   */
  writeOne(stepMs: number | null): boolean {
    const [node] = this.#waiting;
    if (node === undefined || !mayWrite(stepMs, this.#lastMs)) return false;
    this.#waiting.delete(node);
    // What goes on from a block that is not there would not be found.
    const isReachable = node.parent !== null && (node.depth === 0 || node.parent.isStored);
    if (isReachable && node.block >= 0 && !node.isStored) {
      const from = this.#now();
      if (!this.#store.write(node)) this.#waiting.clear();
      this.#lastMs = this.#now() - from;
    }
    return this.#waiting.size > 0;
  }

  /** Writes what still waits, for a few seconds at most, unless `isBroken`; then the store is anybody's. */
  close(isBroken: boolean): void {
    const until = this.#now() + CLOSING_MS;
    while (!isBroken && this.#now() < until && this.writeOne(null));
    this.#store.close();
  }
}
