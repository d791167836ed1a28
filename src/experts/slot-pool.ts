/**
 * Which slots of one kind are free, and how many may be in use at all. The number may change while the engine runs:
 * slots are counted at once, and emptied from the top of the arena afterwards, so that its memory can be given back.
 *
 *     0 ............ limit ............ touched ............ capacity
 *     taken or free  | being emptied    | never used, or given back
 */
import assert from 'node:assert/strict';

export class SlotPool {
  /** Slots for which there are addresses. */
  readonly capacity: number;
  readonly #isTaken: Uint8Array;
  /** No slot below this one is free. */
  #lowest = 0;
  #limit: number;
  #used = 0;
  #touched = 0;

  constructor(capacity: number, limit: number) {
    this.capacity = capacity;
    this.#isTaken = new Uint8Array(capacity);
    this.#limit = limit;
  }

  /** Slots that may be in use. */
  get limit(): number {
    return this.#limit;
  }

  get used(): number {
    return this.#used;
  }

  get free(): number {
    return this.#limit - this.#used;
  }

  /** Slots from here on hold no physical memory. */
  get touched(): number {
    return this.#touched;
  }

  isTaken(slot: number): boolean {
    return this.#isTaken[slot] === 1;
  }

  /** The lowest free slot, always below the limit: memory is touched from the start of the arena on. */
  take(): number {
    assert(this.#used < this.#limit, 'a slot was taken where none is free');
    while (this.#isTaken[this.#lowest] === 1) ++this.#lowest;
    const slot = this.#lowest;
    this.#isTaken[slot] = 1;
    ++this.#used;
    this.#touched = Math.max(this.#touched, slot + 1);
    return slot;
  }

  give(slot: number): void {
    assert(this.#isTaken[slot] === 1, `slot ${slot} is given back and was not taken`);
    this.#isTaken[slot] = 0;
    --this.#used;
    this.#lowest = Math.min(this.#lowest, slot);
  }

  /** @param limit at least `used`, at most `capacity`. Taken slots at or above it keep their places until they are moved. */
  setLimit(limit: number): void {
    assert(limit >= this.#used && limit <= this.capacity, `a limit of ${limit} for ${this.#used} slots in use`);
    this.#limit = limit;
  }

  /** Another slot for what is in one beyond the limit. */
  move(from: number): number {
    this.give(from);
    const to = this.take();
    assert(to < from, `slot ${from} cannot move down`);
    return to;
  }

  /** Touched slots from here on are beyond the limit and free. */
  get vacantFrom(): number {
    let first = this.#touched;
    while (first > this.#limit && this.#isTaken[first - 1] === 0) --first;
    return Math.min(first, this.#touched);
  }

  /** Slots below `end` have got their memory before they are taken. */
  populated(end: number): void {
    this.#touched = Math.max(this.#touched, end);
  }

  /** The memory of slots from `first` on was given back: none of them is taken. */
  untouched(first: number): void {
    assert(this.#isTaken.indexOf(1, first) < 0, `slots from ${first} on are given back and one is taken`);
    this.#touched = Math.min(this.#touched, first);
  }
}
