/**
 * Stored blocks on their way to the sequences that wait for them. Threads of Node.js wait for the disk and leave a record in
 * the page cache; the engine's thread then moves it from there into a KV block and checks it, between two steps. So a slow
 * disk holds up those alone who asked for it, and nobody writes to a KV block but the engine's thread: a sequence that goes
 * away meanwhile leaves nothing behind.
 */
import type { PrefixNode } from './prefix-index.js';

export interface StoredBlock {
  readonly node: PrefixNode;
  /** Its first tokens that are wanted: all of them, or what the last block has in common. */
  readonly count: number;
  state: 'waiting' | 'reading' | 'landed';
}

/** What a sequence still gets before it computes: blocks after those of its table, in order. */
export interface Restoring {
  readonly blocks: readonly StoredBlock[];
  /** Those before are in place. */
  next: number;
}

/** Node.js has four threads for files; what landed is moved between two steps. */
const READS_AT_ONCE = 4;

export class PrefixReads {
  /** Something landed that nobody has looked at yet. */
  hasLanded = false;
  /** Called when something landed, at any time but within a step. */
  onLanded: () => void = () => {};
  readonly #fetch: (node: PrefixNode) => Promise<void>;
  #underWay = 0;

  /** @param fetch resolves when the record can be read without waiting; when it rejects, reading says why. */
  constructor(fetch: (node: PrefixNode) => Promise<void>) {
    this.#fetch = fetch;
  }

  /** Begins the next reads of a sequence, as many as may be under way at once with those of others. */
  begin({ blocks, next }: Restoring): void {
    for (let i = next; i < blocks.length && this.#underWay < READS_AT_ONCE; ++i) {
      const block = blocks[i]!;
      if (block.state !== 'waiting') continue;
      ++this.#underWay;
      block.state = 'reading';
      const landed = (): void => {
        --this.#underWay;
        block.state = 'landed';
        this.hasLanded = true;
        this.onLanded();
      };
      // What is wrong with a file is found, and told, when its record is moved.
      this.#fetch(block.node).then(landed, landed);
    }
  }
}
