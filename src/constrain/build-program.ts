/**
 * Rules to an automaton: each rule becomes a machine of states over bytes that may call other rules, so that recursion
 * costs a stack and nothing else does. Construction after Thompson, CACM 11(6), 1968; repetitions with large bounds keep a
 * counter in place of copies.
 */
import { type ByteRanges, type Expression, NOTHING, type Rules } from './expression.js';
import { RULES_MAX, STATES_MAX, UNROLLED_MAX } from './limits.js';
import { type FormatProgram, STATE } from './program.js';
import { refuseFormat } from './refuse.js';
import { trim } from './trim.js';

/** What fits an Int32Array; a larger bound is no bound. */
const COUNT_MAX = 2 ** 31 - 2;

/**
 * @param key names the format in caches.
 * @throws {MoestroError} UNSUPPORTED_FORMAT when no text is in the format, a rule begins with itself, or it is too large.
 */
export function buildProgram(rules: Rules, key: string): FormatProgram {
  const trimmed = trim(rules);
  if (trimmed.expressions[0]!.kind === 'bytes' && trimmed.expressions[0]!.ranges.length === 0) {
    throw refuseFormat('its root', 'a format that no text can have', 'one that some text has');
  }
  return new Builder(trimmed).build(key);
}

interface Part {
  readonly first: number;
  /** Left open: set to the state after it. */
  readonly last: number;
}

class Builder {
  readonly #names: string[];
  readonly #expressions: Expression[];
  readonly #kinds: number[] = [];
  readonly #a: number[] = [];
  readonly #b: number[] = [];
  readonly #loopOf: number[] = [];
  readonly #forks: number[][] = [];
  readonly #loops: { body: number; exit: number; readonly min: number; readonly max: number }[] = [];
  readonly #sets: ByteRanges[] = [];
  readonly #setIndex = new Map<string, number>();
  readonly #nullable: boolean[];
  #loop = -1;

  constructor({ expressions, names }: Rules) {
    this.#expressions = [...expressions];
    this.#names = [...names];
    this.#nullable = nullableRules(expressions);
  }

  build(key: string): FormatProgram {
    const starts: number[] = [];
    // Bodies of repetitions within repetitions become rules of their own on the way.
    for (let rule = 0; rule < this.#expressions.length; ++rule) {
      if (rule >= RULES_MAX) throw refuseFormat('its root', `more than ${RULES_MAX} rules`, 'a smaller one');
      const { first, last } = this.#part(this.#expressions[rule] ?? NOTHING);
      this.#kinds[last] = STATE.accept;
      starts.push(first);
    }
    const forkBegins: number[] = [0];
    for (const targets of this.#forks) forkBegins.push(forkBegins.at(-1)! + targets.length);
    for (let state = 0; state < this.#kinds.length; ++state) {
      if (this.#kinds[state] !== STATE.fork) continue;
      const fork = this.#a[state]!;
      this.#a[state] = forkBegins[fork]!;
      this.#b[state] = forkBegins[fork + 1]!;
    }
    const { classes, classCount, sets } = byteClasses(this.#sets);
    const program = {
      key,
      kinds: Uint8Array.from(this.#kinds),
      a: Int32Array.from(this.#a),
      b: Int32Array.from(this.#b),
      forks: Int32Array.from(this.#forks.flat()),
      loopBodies: Int32Array.from(this.#loops.map(({ body }) => body)),
      loopExits: Int32Array.from(this.#loops.map(({ exit }) => exit)),
      loopMin: Int32Array.from(this.#loops.map(({ min }) => min)),
      loopMax: Int32Array.from(this.#loops.map(({ max }) => max)),
      loopOf: Int32Array.from(this.#loopOf),
      starts: Int32Array.from(starts),
      order: new Int32Array(starts.length),
      classes,
      classCount,
      sets,
      forced: [],
    };
    orderRules(program, this.#names);
    return program;
  }

  #state(kind: number, a = 0, b = 0): number {
    if (this.#kinds.length >= STATES_MAX) {
      throw refuseFormat('its root', `more than ${STATES_MAX} states`, 'fewer or smaller repetitions and alternatives');
    }
    this.#kinds.push(kind);
    this.#a.push(a);
    this.#b.push(b);
    this.#loopOf.push(this.#loop);
    return this.#kinds.length - 1;
  }

  /** A state that goes on in any of `targets`; more may be added to its list. */
  #fork(targets: number[]): number {
    this.#forks.push(targets);
    return this.#state(STATE.fork, this.#forks.length - 1);
  }

  /** Turns an open end into a step to `target`. */
  #join(last: number, target: number): void {
    this.#forks.push([target]);
    this.#kinds[last] = STATE.fork;
    this.#a[last] = this.#forks.length - 1;
  }

  /** An open end, accepting until joined. */
  #open(): number {
    return this.#state(STATE.accept);
  }

  #part(expression: Expression): Part {
    switch (expression.kind) {
      case 'bytes': {
        const last = this.#open();
        return { first: this.#state(STATE.byte, this.#set(expression.ranges), last), last };
      }
      case 'rule': {
        const last = this.#open();
        const first = this.#state(STATE.call, expression.rule, last);
        return { first: this.#nullable[expression.rule] ? this.#fork([first, last]) : first, last };
      }
      case 'sequence':
        return this.#sequence(expression.parts);
      case 'choice': {
        const parts = expression.options.map((option) => this.#part(option));
        const last = this.#open();
        for (const part of parts) this.#join(part.last, last);
        return { first: this.#fork(parts.map((part) => part.first)), last };
      }
      case 'graph': {
        const { states, edges, accepts } = expression.graph;
        const last = this.#open();
        const nodes = Array.from({ length: states }, () => [] as number[]);
        const firsts = nodes.map((targets) => this.#fork(targets));
        for (const { from, by, to } of edges) {
          const part = this.#part(by);
          nodes[from]!.push(part.first);
          this.#join(part.last, firsts[to]!);
        }
        for (const state of accepts) nodes[state]!.push(last);
        return { first: firsts[0]!, last };
      }
      case 'repeat':
        return this.#repeat(expression.body, expression.min, expression.max);
      default:
        return expression satisfies never;
    }
  }

  #sequence(parts: readonly Expression[]): Part {
    if (parts.length === 0) {
      const last = this.#open();
      return { first: last, last };
    }
    const built = parts.map((part) => this.#part(part));
    for (let i = 1; i < built.length; ++i) this.#join(built[i - 1]!.last, built[i]!.first);
    return { first: built[0]!.first, last: built.at(-1)!.last };
  }

  #repeat(body: Expression, least: number, most: number): Part {
    // Rounds that read nothing change nothing, so none is asked for where one may read nothing.
    const isNullable = isNullableExpression(body, this.#nullable);
    const min = Math.min(isNullable ? 0 : least, COUNT_MAX);
    const max = most > COUNT_MAX ? Number.POSITIVE_INFINITY : most;
    const rounds = max === Number.POSITIVE_INFINITY ? min : max;
    if (sizeOf(body) === 0) return this.#sequence([]);
    if (rounds <= 1 || rounds * sizeOf(body) <= UNROLLED_MAX) return this.#unrolled(body, min, max);
    // One counter a rule at a time: what counts within a counted round moves into a rule of its own.
    if (this.#loop >= 0) return this.#part(this.#asRule({ kind: 'repeat', body, min, max }, min === 0));
    const isApart = isNullable || hasCounter(body);
    return this.#counted(isApart ? this.#asRule(body, false) : body, min, max);
  }

  #unrolled(body: Expression, min: number, max: number): Part {
    const first = this.#fork([]);
    let at = first;
    for (let i = 0; i < min; ++i) {
      const part = this.#part(body);
      this.#join(at, part.first);
      at = part.last;
    }
    const last = this.#open();
    if (max === Number.POSITIVE_INFINITY) {
      const part = this.#part(body);
      const head = this.#fork([part.first, last]);
      this.#join(part.last, head);
      this.#join(at, head);
      return { first, last };
    }
    for (let i = min; i < max; ++i) {
      const part = this.#part(body);
      this.#join(at, this.#fork([part.first, last]));
      at = part.last;
    }
    this.#join(at, last);
    return { first, last };
  }

  /** The body as a call of a new rule. Where it is said not to be nullable, the call always reads something. */
  #asRule(body: Expression, isNullable: boolean): Expression {
    this.#nullable[this.#expressions.length] = isNullable;
    this.#expressions.push(body);
    this.#names.push('a repetition');
    return { kind: 'rule', rule: this.#expressions.length - 1 };
  }

  #counted(body: Expression, min: number, max: number): Part {
    const last = this.#open();
    this.#loops.push({ body: 0, exit: last, min, max: max === Number.POSITIVE_INFINITY ? -1 : max });
    const loop = this.#loops.length - 1;
    const head = this.#state(STATE.loop, loop);
    this.#loop = loop;
    const part = this.#part(body);
    this.#loops[loop]!.body = part.first;
    this.#kinds[part.last] = STATE.round;
    this.#a[part.last] = loop;
    this.#b[part.last] = head;
    this.#loop = -1;
    return { first: head, last };
  }

  #set(ranges: ByteRanges): number {
    const key = ranges.map(([first, last]) => `${first}-${last}`).join();
    const known = this.#setIndex.get(key);
    if (known !== undefined) return known;
    this.#sets.push(ranges);
    this.#setIndex.set(key, this.#sets.length - 1);
    return this.#sets.length - 1;
  }
}

function isNullableExpression(expression: Expression, rules: readonly boolean[]): boolean {
  switch (expression.kind) {
    case 'bytes':
      return false;
    case 'sequence':
      return expression.parts.every((part) => isNullableExpression(part, rules));
    case 'choice':
      return expression.options.some((option) => isNullableExpression(option, rules));
    case 'repeat':
      return expression.min === 0 || isNullableExpression(expression.body, rules);
    case 'rule':
      return rules[expression.rule] ?? false;
    case 'graph': {
      // States that are reached without reading.
      const reached = new Set([0]);
      for (const state of reached) {
        for (const { from, by, to } of expression.graph.edges) {
          if (from === state && isNullableExpression(by, rules)) reached.add(to);
        }
      }
      return expression.graph.accepts.some((state) => reached.has(state));
    }
    default:
      return expression satisfies never;
  }
}

function nullableRules(expressions: readonly Expression[]): boolean[] {
  const nullable = expressions.map(() => false);
  for (let isChanged = true; isChanged; ) {
    isChanged = false;
    for (let rule = expressions.length - 1; rule >= 0; --rule) {
      if (nullable[rule] || !isNullableExpression(expressions[rule]!, nullable)) continue;
      nullable[rule] = true;
      isChanged = true;
    }
  }
  return nullable;
}

/** Byte states it would take, roughly; calls count as one. */
function sizeOf(expression: Expression): number {
  switch (expression.kind) {
    case 'bytes':
    case 'rule':
      return 1;
    case 'sequence':
      return expression.parts.reduce((sum, part) => sum + sizeOf(part), 0);
    case 'choice':
      return expression.options.reduce((sum, option) => sum + sizeOf(option), 0);
    case 'graph':
      return expression.graph.edges.reduce((sum, { by }) => sum + sizeOf(by), 0);
    case 'repeat': {
      const rounds = expression.max === Number.POSITIVE_INFINITY ? expression.min + 1 : expression.max;
      return Math.min(rounds, UNROLLED_MAX) * sizeOf(expression.body);
    }
    default:
      return expression satisfies never;
  }
}

/** Whether some repetition in it may need a counter. */
function hasCounter(expression: Expression): boolean {
  switch (expression.kind) {
    case 'bytes':
    case 'rule':
      return false;
    case 'sequence':
      return expression.parts.some(hasCounter);
    case 'choice':
      return expression.options.some(hasCounter);
    case 'graph':
      return expression.graph.edges.some(({ by }) => hasCounter(by));
    case 'repeat': {
      const { body, min, max } = expression;
      const rounds = max === Number.POSITIVE_INFINITY ? min : max;
      return (rounds > 1 && rounds * sizeOf(body) > UNROLLED_MAX) || hasCounter(body);
    }
    default:
      return expression satisfies never;
  }
}

function byteClasses(sets: readonly ByteRanges[]): { classes: Uint8Array; classCount: number; sets: Uint8Array } {
  // Bytes are told apart where some range begins or ends; between two such places all are alike.
  const cuts = new Set([0]);
  for (const ranges of sets) {
    for (const [first, last] of ranges) {
      cuts.add(first);
      if (last < 255) cuts.add(last + 1);
    }
  }
  const classes = new Uint8Array(256);
  const firsts = [...cuts].sort((a, b) => a - b);
  for (const [index, first] of firsts.entries()) classes.fill(index, first, firsts[index + 1] ?? 256);
  const held = new Uint8Array(sets.length * firsts.length);
  for (const [set, ranges] of sets.entries()) {
    for (const [first, last] of ranges)
      held.fill(1, set * firsts.length + classes[first]!, set * firsts.length + classes[last]! + 1);
  }
  return { classes, classCount: firsts.length, sets: held };
}

/**
 * Fills program.order: which rules call which as the first thing they do must not go round in a circle, or nobody could say
 * where a text stands.
 */
function orderRules(program: FormatProgram, names: readonly string[]): void {
  const { starts, order } = program;
  const callees = Array.from(starts, (start) => leftCalls(program, start));
  const isOpen = new Uint8Array(starts.length);
  const isDone = new Uint8Array(starts.length);
  let place = starts.length;
  for (let root = 0; root < starts.length; ++root) {
    const path: { readonly rule: number; next: number }[] = [];
    const enter = (rule: number): void => {
      if (isDone[rule]) return;
      if (isOpen[rule]) {
        throw refuseFormat(`"${names[rule]}"`, 'a rule that begins with itself', 'something to be read before it does');
      }
      isOpen[rule] = 1;
      path.push({ rule, next: 0 });
    };
    enter(root);
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const callee = callees[top.rule]![top.next++];
      if (callee !== undefined) {
        enter(callee);
        continue;
      }
      isDone[top.rule] = 1;
      order[top.rule] = --place;
      path.pop();
    }
  }
}

function leftCalls({ kinds, a, b, forks, loopBodies, loopExits, loopMin }: FormatProgram, start: number): number[] {
  const seen = new Set([start]);
  const calls = new Set<number>();
  for (const state of seen) {
    switch (kinds[state]) {
      case STATE.call:
        calls.add(a[state]!);
        break;
      case STATE.fork:
        for (let i = a[state]!; i < b[state]!; ++i) seen.add(forks[i]!);
        break;
      case STATE.loop:
        seen.add(loopBodies[a[state]!]!);
        if (loopMin[a[state]!] === 0) seen.add(loopExits[a[state]!]!);
        break;
      case STATE.round:
        seen.add(b[state]!);
        break;
    }
  }
  return [...calls];
}
