/**
 * Which sequences are open, which of them run and which wait, and who has KV blocks: the one owner of both lists.
 * Who is next in line: nextInLine; where blocks run out the sequence that came last gives its own back.
 */
import { MoestroError } from '../errors.js';
import type { KvBlocks } from './kv-blocks.js';
import { nextInLine } from './next-in-line.js';
import type { PrefixCache } from './prefix/prefix-cache.js';
import type { Sequence } from './sequence.js';
import { EVALUATION_BYTES_MAX } from './types.js';

export class OpenSequences {
  readonly #blocks: KvBlocks;
  readonly #limits: { readonly maxSequences: number; readonly maxQueued: number };
  readonly #now: () => number;
  /** Both in order of arrival. */
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];

  /** True while memory is too short for more than what is open. */
  readonly #isPaused: () => boolean;
  readonly #prefixes: PrefixCache | null;

  constructor(
    blocks: KvBlocks,
    limits: { readonly maxSequences: number; readonly maxQueued: number },
    now: () => number,
    isPaused: () => boolean = () => false,
    prefixes: PrefixCache | null = null,
  ) {
    this.#isPaused = isPaused;
    this.#prefixes = prefixes;
    this.#blocks = blocks;
    this.#limits = limits;
    this.#now = now;
  }

  get running(): readonly Sequence[] {
    return this.#running;
  }

  get waiting(): readonly Sequence[] {
    return this.#waiting;
  }

  find(id: number): Sequence | undefined {
    const hasId = (sequence: Sequence): boolean => sequence.id === id;
    return this.#running.find(hasId) ?? this.#waiting.find(hasId);
  }

  /** @throws {MoestroError} QUEUE_FULL when it would have to wait and as many wait as may. */
  enqueue(sequence: Sequence): void {
    // Those that the newest step made room for wait no longer.
    this.admit();
    const isNext = this.#waiting.length === 0 && this.#hasRoomFor(sequence);
    if (!isNext && this.#waiting.length >= this.#limits.maxQueued) {
      throw new MoestroError(
        'QUEUE_FULL',
        `Cannot take another request: ${this.#running.length} are running and ${this.#waiting.length} waiting`,
        { running: this.#running.length, waiting: this.#waiting.length },
      );
    }
    this.#waiting.push(sequence);
    // At once where there is room, so that the limit on waiting ones counts those only that wait.
    this.admit();
  }

  /** Lets those run that have room. Each takes the blocks of all its known tokens now, so that none starts in vain. */
  admit(): void {
    while (this.#waiting.length > 0) {
      const next = nextInLine(this.#waiting, this.#running);
      const sequence = this.#waiting[next]!;
      if (!this.#hasRoomFor(sequence)) return;
      this.#waiting.splice(next, 1);
      this.#prefixes?.restore(sequence);
      this.#blocks.grow(sequence.table, sequence.tokens.length);
      this.#prefixes?.lookAhead(sequence, this.#running);
      sequence.admitted(this.#now());
      this.#running.push(sequence);
    }
  }

  /**
   * Blocks for the next `counts[i]` tokens of each running sequence i. Where they run out the sequence that came last
   * gives its own back and waits, its count 0; it later computes its tokens again, prompt and answer so far, as far as
   * they were not kept, which gives the same keys and values.
   */
  takeBlocks(counts: Int32Array): void {
    for (let i = 0; i < this.#running.length; ++i) {
      const sequence = this.#running[i]!;
      if (counts[i] === 0) continue;
      while (!this.#blocks.grow(sequence.table, sequence.computed + counts[i]!)) {
        const last = this.#running.length - 1;
        counts[last] = 0;
        this.#preempt();
        if (last === i) break;
      }
    }
  }

  /** Kept prefixes go; then sequences that came last give their blocks back and wait, until no more are in use than may be. */
  shedBlocks(): void {
    this.#prefixes?.shed();
    while (this.#blocks.used > this.#blocks.limit && this.#running.length > 1) this.#preempt();
  }

  /** Blocks with which each open sequence could go on by itself. */
  leastBlocks(): number {
    let most = 0;
    for (const { tokens } of this.#running) most = Math.max(most, tokens.length);
    for (const { tokens } of this.#waiting) most = Math.max(most, tokens.length);
    return most === 0 ? 0 : Math.ceil((most + 1) / this.#blocks.blockTokens);
  }

  /** Takes a sequence off the lists and gives its blocks back. */
  close(sequence: Sequence): void {
    for (const list of [this.#waiting, this.#running]) {
      const at = list.indexOf(sequence);
      if (at >= 0) list.splice(at, 1);
    }
    this.#leaveBlocks(sequence);
  }

  /** What it computed is kept as long as nobody needs the room. */
  #leaveBlocks(sequence: Sequence): void {
    this.#prefixes?.keepAll(sequence);
    this.#blocks.release(sequence.table);
  }

  #preempt(): void {
    const preempted = this.#running.pop()!;
    this.#leaveBlocks(preempted);
    preempted.startOver();
    this.#waiting.unshift(preempted);
  }

  #hasRoomForLogits(sequence: Sequence): boolean {
    let bytes = sequence.evaluation?.bytes ?? 0;
    if (bytes === 0) return true;
    for (const { evaluation } of this.#running) bytes += evaluation?.bytes ?? 0;
    return bytes <= EVALUATION_BYTES_MAX;
  }

  #hasRoomFor(sequence: Sequence): boolean {
    // One runs however short memory is: the floor is made for it.
    if (this.#running.length > 0 && this.#isPaused()) return false;
    return (
      this.#running.length < this.#limits.maxSequences &&
      this.#hasRoomForLogits(sequence) &&
      this.#blocks.missing(sequence.table, sequence.tokens.length) <= this.#blocks.free
    );
  }
}
