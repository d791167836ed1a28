/**
 * Several conditions on one text at once: patterns it has to match or must not match, and its length. Made one deterministic
 * automaton by following all of them together, as far as texts reach.
 */
import { ALL, type CodePoints, has, intersect, minus, union } from './code-points.js';
import { type Expression, type Graph, NOTHING } from './expression.js';
import { PRODUCT_STATES_MAX } from './limits.js';
import { refuseFormat } from './refuse.js';
import type { Regex } from './regex.js';

/** Different sets of characters in one pattern: each pair of them is compared. */
const SETS_MAX = 256;

export interface Condition {
  readonly regex: Regex;
  /** The text must not match. */
  readonly isNegated?: boolean;
}

/** A pattern as it stands, each character spelled by `spell`. */
export function regexExpression(regex: Regex, spell: (set: CodePoints) => Expression): Expression {
  switch (regex.kind) {
    case 'chars':
      return spell(regex.set);
    case 'sequence':
      return { kind: 'sequence', parts: regex.parts.map((part) => regexExpression(part, spell)) };
    case 'choice':
      return { kind: 'choice', options: regex.options.map((option) => regexExpression(option, spell)) };
    case 'repeat':
      return { kind: 'repeat', body: regexExpression(regex.body, spell), min: regex.min, max: regex.max };
    case 'start':
    case 'end':
      // Taken out by parseRegex.
      return NOTHING;
    default:
      return regex satisfies never;
  }
}

/**
 * @param place for errors.
 * @param length of the text in characters, both ends included.
 * @param spell how a character of a set is written.
 * @throws {MoestroError} UNSUPPORTED_FORMAT when the automaton would be larger than the limit.
 */
export function automaton(
  conditions: readonly Condition[],
  length: { readonly min: number; readonly max: number },
  spell: (set: CodePoints) => Expression,
  place: string,
): Expression {
  const parts = conditions.map(({ regex, isNegated = false }) => ({ nfa: new CharacterNfa(regex, place), isNegated }));
  const alphabet = partition(parts.flatMap(({ nfa }) => nfa.sets));
  // Counting stops where it makes no difference any more.
  const counted = length.max === Number.POSITIVE_INFINITY ? length.min : length.max + 1;
  const index = new Map<string, number>();
  const states: { readonly sets: readonly (readonly number[])[]; readonly count: number }[] = [];
  const enter = (sets: readonly (readonly number[])[], count: number): number => {
    const key = `${count}/${sets.map((set) => set.join()).join('/')}`;
    const known = index.get(key);
    if (known !== undefined) return known;
    if (states.length >= PRODUCT_STATES_MAX) {
      const found = `patterns and lengths that take more than ${PRODUCT_STATES_MAX} states together`;
      throw refuseFormat(place, found, 'simpler patterns, or smaller bounds beside them');
    }
    states.push({ sets, count });
    index.set(key, states.length - 1);
    return states.length - 1;
  };
  enter(
    parts.map(({ nfa }) => nfa.start),
    0,
  );
  const edges: Graph['edges'][number][] = [];
  const accepts: number[] = [];
  for (let from = 0; from < states.length; ++from) {
    const { sets, count } = states[from]!;
    const isWhole = parts.every(({ nfa, isNegated }, i) => nfa.accepts(sets[i]!) !== isNegated);
    if (isWhole && count >= length.min && count <= length.max) accepts.push(from);
    if (count >= length.max) continue;
    const byTarget = new Map<number, CodePoints>();
    for (const set of alphabet) {
      const next = parts.map(({ nfa }, i) => nfa.step(sets[i]!, set[0]![0]));
      // A pattern that can match no more ends the text, unless it must not match.
      if (next.some((states, i) => states.length === 0 && !parts[i]!.isNegated)) continue;
      const to = enter(next, Math.min(count + 1, counted));
      byTarget.set(to, union(byTarget.get(to) ?? [], set));
    }
    for (const [to, set] of byTarget) edges.push({ from, by: spell(set), to });
  }
  return { kind: 'graph', graph: { states: states.length, edges, accepts } };
}

/** Whether any text satisfies all of them. */
export function isPossible(conditions: readonly Condition[], place: string): boolean {
  const any = { min: 0, max: Number.POSITIVE_INFINITY };
  const made = automaton(conditions, any, () => ({ kind: 'sequence', parts: [] }), place);
  return made.kind === 'graph' && made.graph.accepts.length > 0;
}

/** Sets of which each is within or without every one of `sets`; together they are all characters. */
function partition(sets: readonly CodePoints[]): CodePoints[] {
  let parts: CodePoints[] = [ALL];
  for (const set of sets) {
    parts = parts.flatMap((part) => [intersect(part, set), minus(part, set)].filter((piece) => piece.length > 0));
  }
  return parts;
}

/** A pattern as a nondeterministic automaton over characters; sets of states are sorted lists. */
class CharacterNfa {
  readonly sets: CodePoints[] = [];
  readonly start: readonly number[];
  /** By state: on which set it reads, -1 for none; and where it goes then, or without reading. */
  readonly #reads: number[] = [];
  readonly #next: number[][] = [];
  readonly #end: number;
  readonly #place: string;
  readonly #setIndex = new Map<string, number>();

  constructor(regex: Regex, place: string) {
    this.#place = place;
    this.#end = this.#state();
    const first = this.#add(regex, this.#end);
    this.start = this.#closed([first]);
  }

  accepts(states: readonly number[]): boolean {
    return states.includes(this.#end);
  }

  step(states: readonly number[], point: number): readonly number[] {
    const next: number[] = [];
    for (const state of states) {
      const set = this.#reads[state]!;
      if (set >= 0 && has(this.sets[set]!, point)) next.push(...this.#next[state]!);
    }
    return this.#closed(next);
  }

  #closed(from: readonly number[]): readonly number[] {
    const seen = new Set(from);
    for (const state of seen) if (this.#reads[state]! < 0) for (const next of this.#next[state]!) seen.add(next);
    return [...seen].filter((state) => this.#reads[state]! >= 0 || state === this.#end).sort((a, b) => a - b);
  }

  #state(reads = -1, next: number[] = []): number {
    if (this.#reads.length >= PRODUCT_STATES_MAX * 4) {
      throw refuseFormat(this.#place, 'a pattern that is too large', 'fewer or smaller repetitions');
    }
    this.#reads.push(reads);
    this.#next.push(next);
    return this.#reads.length - 1;
  }

  /** The first state of `regex` when `then` follows it. */
  #add(regex: Regex, then: number): number {
    switch (regex.kind) {
      case 'chars': {
        const key = regex.set.join(';');
        let set = this.#setIndex.get(key);
        if (set === undefined) {
          if (this.sets.length >= SETS_MAX)
            throw refuseFormat(this.#place, `over ${SETS_MAX} sets of characters`, 'fewer');
          set = this.sets.push(regex.set) - 1;
          this.#setIndex.set(key, set);
        }
        return this.#state(set, [then]);
      }
      case 'sequence':
        return regex.parts.reduceRight((next, part) => this.#add(part, next), then);
      case 'choice':
        return this.#state(
          -1,
          regex.options.map((option) => this.#add(option, then)),
        );
      case 'repeat': {
        let next = then;
        if (regex.max === Number.POSITIVE_INFINITY) {
          next = this.#state(-1, [then]);
          this.#next[next]!.push(this.#add(regex.body, next));
        } else {
          for (let i = regex.min; i < regex.max; ++i) next = this.#state(-1, [this.#add(regex.body, next), then]);
        }
        for (let i = 0; i < regex.min; ++i) {
          const before = next;
          next = this.#add(regex.body, next);
          // A body that is the empty text: once is as often as ever.
          if (next === before) break;
        }
        return next;
      }
      case 'start':
      case 'end':
        return then;
      default:
        return regex satisfies never;
    }
  }
}
