/**
 * Runs a compiled format: where can a text stand that has been read so far? A place is a set of states, each with the
 * places its rule returns to; sets and stacks are shared and made once (a graph-structured stack, after Tomita, 1985), so
 * recursion that can be read in two ways does not double them. Steps are remembered, so reading on is mostly a look-up.
 */
import { MoestroError } from '../errors.js';
import { type FormatProgram, STATE } from './program.js';

/** A state, and how many rounds of its repetition are done, as one number. */
type Member = number;
const COUNTS = 2 ** 32;
/** In place of a count: the least number of rounds is farther away than any token is long; the greatest is. */
const FAR_FROM_LEAST = -1;
const FAR_FROM_MOST = -2;
const member = (state: number, count: number): Member => state * COUNTS + (count + 2);
const stateOf = (one: Member): number => Math.floor(one / COUNTS);
const countOf = (one: Member): number => (one % COUNTS) - 2;

/** States that one rule may be in: those that read, call or accept. */
export interface StateSet {
  readonly id: number;
  readonly members: readonly Member[];
  readonly isAccepting: boolean;
}

/** Where a rule returns to. `isEnd`: the format, or what was asked about, is over there. */
export interface Returns {
  readonly id: number;
  readonly frames: readonly Frame[];
  readonly isEnd: boolean;
  /** The place after returning; made when first asked for. */
  place: Place | undefined;
}

export interface Frame {
  readonly set: StateSet;
  readonly returns: Returns;
}

export interface Place {
  readonly id: number;
  /** Sets of states that read a byte. */
  readonly frames: readonly Frame[];
  /** The text may end here. */
  readonly isEnd: boolean;
  /** By class of byte: the place after it, null where there is none, undefined where nobody has asked. */
  readonly next: (Place | null | undefined)[];
  /** The only byte that can follow where the text cannot end, -1 when there is no such byte, -2 when nobody has asked. */
  forced: number;
}

/** Members of one place at most: only a very ambiguous grammar comes near. */
const MEMBERS_MAX = 4_096;
/** Places that are remembered, under a kilobyte each; beyond that all are forgotten and made anew: counted strings take ten a character. */
const PLACES_MAX = 8_192;

export class Machine {
  readonly program: FormatProgram;
  readonly end: Returns = { id: 0, frames: [], isEnd: true, place: undefined };
  readonly #byteSets = new Map<string, StateSet>();
  readonly #sets = new Map<string, StateSet>();
  readonly #returns = new Map<string, Returns>();
  readonly #places = new Map<string, Place>();
  #nextId = 1;
  #start: Place | undefined;

  constructor(program: FormatProgram) {
    this.program = program;
  }

  get start(): Place {
    this.#start ??= this.#close(new Map([[this.end, this.#closeSet([member(this.program.starts[0]!, 0)])]]));
    return this.#start;
  }

  /** The place after one byte, or null where the format has no text that goes on so. */
  step(place: Place, byte: number): Place | null {
    const known = place.next[this.program.classes[byte]!];
    return known === undefined ? this.stepClass(place, this.program.classes[byte]!) : known;
  }

  /** As step, for what `next` does not hold yet. */
  stepClass(place: Place, byteClass: number): Place | null {
    const { sets, a, b, classCount } = this.program;
    const reached = new Map<Returns, StateSet>();
    for (const { set, returns } of place.frames) {
      const targets: Member[] = [];
      for (const one of set.members) {
        const state = stateOf(one);
        if (sets[a[state]! * classCount + byteClass]) targets.push(member(b[state]!, countOf(one)));
      }
      if (targets.length > 0) this.#add(reached, returns, this.#closeSet(targets));
    }
    const next = reached.size === 0 ? null : this.#close(reached);
    place.next[byteClass] = next;
    return next;
  }

  /** Where a text stands whose innermost rule has just ended. */
  placeAfter(returns: Returns): Place {
    returns.place ??= this.#close(new Map(returns.frames.map((frame) => [frame.returns, frame.set])), returns.isEnd);
    return returns.place;
  }

  /** A place in which only `set` reads and the end follows it: for what holds whatever stands around a rule. */
  alone(members: readonly Member[]): Place {
    return this.#place(new Map([[this.end, members]]), false);
  }

  /** As `alone`, for a state that reads. */
  inState(state: number): Place {
    return this.alone([member(state, 0)]);
  }

  /** The only byte that can follow, or -1. */
  forcedByte(place: Place): number {
    if (place.forced !== -2) return place.forced;
    const { classes, classCount } = this.program;
    let only = -1;
    for (let one = 0; one < classCount && !place.isEnd; ++one) {
      const next = place.next[one];
      if ((next === undefined ? this.stepClass(place, one) : next) === null) continue;
      if (only >= 0 || classes.indexOf(one) !== classes.lastIndexOf(one)) {
        only = -1;
        break;
      }
      only = classes.indexOf(one);
    }
    place.forced = only;
    return only;
  }

  /**
   * The members of a set in groups whose tokens can be told apart from the rest of the text, for masks that many places
   * share. Counts that no token of `longest` bytes can exhaust are alike.
   */
  groups(set: StateSet, longest: number): readonly Group[] {
    const { loopOf, loopMin, loopMax } = this.program;
    const plain: Member[] = [];
    const groups: Group[] = [];
    for (const one of set.members) {
      const loop = loopOf[stateOf(one)]!;
      const count = countOf(one);
      if (loop < 0 || count < 0) {
        plain.push(one);
        continue;
      }
      const state = stateOf(one);
      const toLeast = loopMin[loop]! - count;
      const toMost = loopMax[loop]! < 0 ? Number.POSITIVE_INFINITY : loopMax[loop]! - count;
      const far = member(state, toLeast > 0 ? FAR_FROM_LEAST : FAR_FROM_MOST);
      const free = toLeast > 0 ? toLeast : toMost;
      const within = toLeast > 0 && toMost > longest ? member(state, FAR_FROM_MOST) : null;
      if (free > longest) groups.push({ members: [far], like: null, within: null, free: 0 });
      else groups.push({ members: [one], like: far, within, free });
    }
    if (plain.length > 0) groups.push({ members: plain, like: null, within: null, free: 0 });
    return groups;
  }

  /** States that can be reached without reading, from states of one rule. */
  #closeSet(from: readonly Member[]): StateSet {
    const { kinds, a, b, forks, loopBodies, loopExits, loopMin, loopMax } = this.program;
    const key = from.length === 1 ? String(from[0]) : [...from].sort((x, y) => x - y).join();
    const known = this.#sets.get(key);
    if (known !== undefined) return known;
    const seen = new Set(from);
    const found: Member[] = [];
    for (const one of seen) {
      if (seen.size > MEMBERS_MAX * 4) throw tooAmbiguous();
      const state = stateOf(one);
      const count = countOf(one);
      switch (kinds[state]) {
        case STATE.fork:
          for (let i = a[state]!; i < b[state]!; ++i) seen.add(member(forks[i]!, count));
          break;
        case STATE.loop: {
          const loop = a[state]!;
          const most = loopMax[loop]!;
          if (count < 0 || most < 0 || count < most) seen.add(member(loopBodies[loop]!, count));
          if (count >= loopMin[loop]! || count === FAR_FROM_MOST) seen.add(member(loopExits[loop]!, 0));
          break;
        }
        case STATE.round: {
          const loop = a[state]!;
          // Without a most, what counts is only whether the least is reached.
          const isEnough = loopMax[loop]! < 0 && count >= loopMin[loop]!;
          seen.add(member(b[state]!, count < 0 || isEnough ? count : count + 1));
          break;
        }
        default:
          found.push(one);
      }
    }
    const set = this.#set(found.sort((x, y) => x - y));
    this.#sets.set(key, set);
    return set;
  }

  /** `found` in ascending order. */
  #set(found: readonly Member[]): StateSet {
    const key = found.join();
    const known = this.#byteSets.get(key);
    if (known !== undefined) return known;
    if (found.length > MEMBERS_MAX) throw tooAmbiguous();
    const isAccepting = found.some((one) => this.program.kinds[stateOf(one)] === STATE.accept);
    const set: StateSet = { id: this.#nextId++, members: found, isAccepting };
    this.#byteSets.set(key, set);
    return set;
  }

  /** Joins a set to those that return to the same place. False when it was all there. */
  #add(frames: Map<Returns, StateSet>, returns: Returns, set: StateSet): boolean {
    const present = frames.get(returns);
    if (present === set) return false;
    if (present === undefined) {
      frames.set(returns, set);
      return true;
    }
    const joined = this.#set([...new Set([...present.members, ...set.members])].sort((x, y) => x - y));
    frames.set(returns, joined);
    return joined !== present;
  }

  /** Returns from rules that are over, then calls those that begin, until only states that read are left. */
  #close(frames: Map<Returns, StateSet>, isEnd = false): Place {
    const { kinds, a, b, order, starts } = this.program;
    let isAtEnd = isEnd;
    const open = [...frames.keys()];
    for (let returns = open.pop(); returns !== undefined; returns = open.pop()) {
      if (!frames.get(returns)!.isAccepting) continue;
      isAtEnd ||= returns.isEnd;
      for (const frame of returns.frames) if (this.#add(frames, frame.returns, frame.set)) open.push(frame.returns);
    }

    /** By rule: what its callers go on with, and whether one of them has nothing to go on with at the end. */
    const calls = new Map<number, { readonly frames: Map<Returns, StateSet>; isEnd: boolean }>();
    const queue: number[] = [];
    const reading = new Map<Returns, Member[]>();
    const sort = (set: StateSet, returns: Returns): void => {
      for (const one of set.members) {
        const state = stateOf(one);
        if (kinds[state] === STATE.byte) {
          const present = reading.get(returns);
          if (present === undefined) reading.set(returns, [one]);
          else present.push(one);
        } else if (kinds[state] === STATE.call) {
          const rule = a[state]!;
          let call = calls.get(rule);
          if (call === undefined) {
            call = { frames: new Map(), isEnd: false };
            calls.set(rule, call);
            queue.push(rule);
          }
          const then = this.#closeSet([member(b[state]!, countOf(one))]);
          const isTail = then.members.length === 1 && then.isAccepting;
          if (!isTail) this.#add(call.frames, returns, then);
          else {
            // Nothing is left to do after the call: its callers' callers are returned to at once.
            for (const frame of returns.frames) this.#add(call.frames, frame.returns, frame.set);
            call.isEnd ||= returns.isEnd;
          }
        }
      }
    };
    for (const [returns, set] of frames) sort(set, returns);
    while (queue.length > 0) {
      // Callers before those they begin with: then all of a rule's callers are known when it is begun.
      let first = 0;
      for (let i = 1; i < queue.length; ++i) if (order[queue[i]!]! < order[queue[first]!]!) first = i;
      const rule = queue[first]!;
      queue[first] = queue.at(-1)!;
      queue.pop();
      const call = calls.get(rule)!;
      sort(this.#closeSet([member(starts[rule]!, 0)]), this.#return(call.frames, call.isEnd));
    }
    return this.#place(reading, isAtEnd);
  }

  #return(frames: ReadonlyMap<Returns, StateSet>, isEnd: boolean): Returns {
    if (frames.size === 0 && isEnd) return this.end;
    const parts = [...frames].sort(([a], [b]) => a.id - b.id);
    const key = `${isEnd ? 'e' : ''}${parts.map(([returns, set]) => `${set.id}>${returns.id}`).join()}`;
    const known = this.#returns.get(key);
    if (known !== undefined) return known;
    const made: Returns = {
      id: this.#nextId++,
      frames: parts.map(([returns, set]) => ({ set, returns })),
      isEnd,
      place: undefined,
    };
    this.#returns.set(key, made);
    return made;
  }

  #place(reading: ReadonlyMap<Returns, readonly Member[]>, isEnd: boolean): Place {
    const frames: Frame[] = [];
    for (const [returns, members] of reading) {
      const ascending = [...new Set(members)].sort((x, y) => x - y);
      frames.push({ set: this.#set(ascending), returns });
    }
    frames.sort((a, b) => a.set.id - b.set.id || a.returns.id - b.returns.id);
    const key = `${isEnd ? 'e' : ''}${frames.map(({ set, returns }) => `${set.id}>${returns.id}`).join()}`;
    const known = this.#places.get(key);
    if (known !== undefined) return known;
    if (this.#places.size >= PLACES_MAX) this.#forget();
    const place: Place = {
      id: this.#nextId++,
      frames,
      isEnd,
      next: new Array<Place | null | undefined>(this.program.classCount).fill(undefined),
      forced: -2,
    };
    this.#places.set(key, place);
    return place;
  }

  /** Sequences keep the places they stand in; whatever else was remembered goes. */
  #forget(): void {
    this.#places.clear();
    this.#returns.clear();
    this.#sets.clear();
    this.#byteSets.clear();
    this.#start = undefined;
    this.end.place = undefined;
  }
}

/** Members whose tokens are found together; see Machine.groups. */
export interface Group {
  readonly members: readonly Member[];
  /** For tokens of at most `free` bytes they are as this one is. */
  readonly like: Member | null;
  /** Where set, all tokens of `like` are theirs, and the rest are among those of this one: what ends the repetition. */
  readonly within: Member | null;
  readonly free: number;
}

function tooAmbiguous(): MoestroError {
  return new MoestroError(
    'FORMAT_FAILED',
    `Cannot go on: the format can be read in more than ${MEMBERS_MAX} ways here, needed a grammar that is less ambiguous`,
  );
}
