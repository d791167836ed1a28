/**
 * JSON Schema to rules over bytes. Whatever the rules write is valid; not all that is valid can be written: properties come in
 * the order of the schema, and objects that name properties have no others unless additionalProperties says so.
 */
import { automaton, type Condition, isPossible, regexExpression } from './code-point-automaton.js';
import {
  choice,
  EMPTY,
  type Expression,
  type Graph,
  literal,
  NOTHING,
  optional,
  repeat,
  type Rules,
  rule,
  sequence,
} from './expression.js';
import {
  ANY_CHARACTER,
  ANY_STRING,
  constant,
  INTEGER,
  NUMBER,
  plainCharacters,
  quoted,
  SPACE,
  stringCharacters,
} from './json-text.js';
import { RULES_MAX } from './limits.js';
import { literals } from './literals.js';
import { integersBetween, numbersBetween, wholeAbove, wholeBelow } from './number-ranges.js';
import { refuseFormat } from './refuse.js';
import { parseRegex, texts } from './regex.js';
import { type Located, SchemaDocument } from './schema-document.js';
import { type Facts, type ObjectPart, readFacts, type TypeName } from './schema-facts.js';
import { checkExclusive } from './schema-oneof.js';
import { OTHER_FORMATS, STRING_FORMATS } from './string-formats.js';
import { valueFits } from './value-fits.js';

export interface SchemaOptions {
  /** Read oneOf as anyOf where its branches cannot be told apart, instead of refusing it. */
  readonly isOneOfLoose?: boolean;
}

const OBJECT: Located = { schema: { type: 'object' }, pointer: '#/(object)' };
const ANYTHING: readonly Located[] = [];
/** Properties that one object names, and patterns of names, at most. */
const PROPERTIES_MAX = 1_000;
const PATTERNS_MAX = 4;
/** Values of a range that are written out one by one; and divisors that digits are followed for, with all their rests. */
const MULTIPLES_MAX = 1_000;
const DIVISOR_MAX = 100;
/** Digits of multiples at most: whole numbers that a double holds exactly. */
const MULTIPLE_DIGITS = 15;

/**
 * @returns rules of which the first is the value of the whole schema.
 * @throws {MoestroError} UNSUPPORTED_FORMAT by JSON pointer.
 */
export function compileSchema(schema: unknown, options: SchemaOptions = {}): Rules {
  const compiler = new SchemaCompiler(options);
  return compiler.rules(compiler.add(schema));
}

/** Several schemas whose rules stand together, so that what they share is built once. */
export class SchemaCompiler {
  readonly #expressions: Expression[] = [];
  readonly #names: string[] = [];
  readonly #byKey = new Map<string, number>();
  readonly #open: { readonly document: SchemaDocument; readonly parts: readonly Located[]; readonly rule: number }[] =
    [];
  readonly #options: SchemaOptions;
  #documents = 0;

  constructor(options: SchemaOptions) {
    this.#options = options;
    this.#reserve('the whole text', 'the whole text');
  }

  /** Adds a schema; the expression is its value, which is an object where `isObject` says so. */
  add(schema: unknown, isObject = false): Expression {
    const document = new SchemaDocument(schema);
    const prefix = `${this.#documents++}`;
    const parts = isObject ? [document.root, OBJECT] : [document.root];
    const value = this.#valueOf(document, parts, prefix);
    for (let next = this.#open.pop(); next !== undefined; next = this.#open.pop()) {
      this.#expressions[next.rule] = this.#compile(next.document, next.parts, prefix);
    }
    if (!this.#options.isOneOfLoose) {
      for (const [pointer, branches] of document.exclusive) checkExclusive(document, pointer, branches);
    }
    return value;
  }

  /** An expression as a rule that is called wherever it is asked for again. */
  shared(name: string, make: () => Expression): Expression {
    const known = this.#byKey.get(name);
    if (known !== undefined) return rule(known);
    const index = this.#reserve(name, name);
    this.#expressions[index] = make();
    return rule(index);
  }

  /** All rules; the first is `whole`. */
  rules(whole: Expression): Rules {
    return { expressions: [whole, ...this.#expressions.slice(1)], names: this.#names };
  }

  #reserve(key: string, name: string): number {
    if (this.#expressions.length >= RULES_MAX)
      throw refuseFormat(name, `more than ${RULES_MAX} rules`, 'a smaller schema');
    this.#expressions.push(NOTHING);
    this.#names.push(name);
    this.#byKey.set(key, this.#expressions.length - 1);
    return this.#expressions.length - 1;
  }

  /** A call of the rule for all of `parts` together. */
  #valueOf(document: SchemaDocument, parts: readonly Located[], prefix: string): Expression {
    const real = parts.filter(({ schema }) => schema !== true);
    if (real.some(({ schema }) => schema === false)) return NOTHING;
    if (real.length === 0 || real.every(({ schema }) => Object.keys(schema).length === 0)) return this.#anyValue();
    const pointers = [...new Set(real.map(({ pointer }) => pointer))].sort();
    const key = `${prefix} ${pointers.join(' & ')}`;
    const known = this.#byKey.get(key);
    if (known !== undefined) return rule(known);
    const index = this.#reserve(key, pointers[0]!);
    this.#open.push({ document, parts: real, rule: index });
    return rule(index);
  }

  #compile(document: SchemaDocument, parts: readonly Located[], prefix: string): Expression {
    return choice(
      document
        .alternatives(parts)
        .map((alternative) => this.#ofFacts(document, readFacts(document, alternative), prefix)),
    );
  }

  #ofFacts(document: SchemaDocument, facts: Facts, prefix: string): Expression {
    if (facts.values !== null) {
      const fitting = facts.values.filter((value) => valueFits(value, facts));
      return fitting.length === 0 ? NOTHING : literals(fitting.map((value) => JSON.stringify(value)));
    }
    // A schema that names no type speaks of those whose keywords it uses.
    const inferred = [...facts.types].filter(
      (type) => facts.spokenOf.has(type) || (type === 'integer' && facts.spokenOf.has('number')),
    );
    const isTyped = facts.types.size < 6;
    const types = !isTyped && inferred.length > 0 ? inferred : [...facts.types];
    return choice(types.map((type) => this.#ofType(document, type, facts, prefix)));
  }

  #ofType(document: SchemaDocument, type: TypeName, facts: Facts, prefix: string): Expression {
    switch (type) {
      case 'null':
        return constant(null);
      case 'boolean':
        return choice([constant(true), constant(false)]);
      case 'integer':
      case 'number':
        return this.#number(type, facts);
      case 'string':
        return this.#string(facts);
      case 'array':
        return this.#array(document, facts, prefix);
      case 'object':
        return this.#object(document, facts, prefix);
      default:
        return type satisfies never;
    }
  }

  #anyValue(): Expression {
    return this.shared('any value', () =>
      choice([
        constant(null),
        constant(true),
        constant(false),
        this.#anyNumber(),
        this.#anyString(),
        rule(this.#anyArray()),
        this.anyObject(),
      ]),
    );
  }

  /** An object with any properties. */
  anyObject(): Expression {
    const known = this.#byKey.get('any object');
    if (known !== undefined) return rule(known);
    const index = this.#reserve('any object', 'any object');
    const member = sequence([this.#anyString(), this.#colon(), this.#anyValue()]);
    this.#expressions[index] = this.#brackets('{', '}', [this.#list(member, 1, Number.POSITIVE_INFINITY)], true);
    return rule(index);
  }

  #anyArray(): number {
    const known = this.#byKey.get('any array');
    if (known !== undefined) return known;
    const index = this.#reserve('any array', 'any array');
    const items = this.#list(this.#anyValue(), 1, Number.POSITIVE_INFINITY);
    this.#expressions[index] = this.#brackets('[', ']', [items], true);
    return index;
  }

  #anyString = (): Expression => this.shared('any string', () => ANY_STRING);
  #anyNumber = (): Expression => this.shared('any number', () => NUMBER);
  #space = (): Expression => this.shared('white space', () => SPACE);
  #comma = (): Expression => sequence([literal(','), this.#space()]);
  #colon = (): Expression => sequence([literal(':'), optional(literal(' '))]);

  #list(item: Expression, min: number, max: number): Expression {
    return sequence([item, repeat(sequence([this.#comma(), item]), Math.max(0, min - 1), max - 1)]);
  }

  /** Content between brackets, or nothing between them. */
  #brackets(open: string, close: string, contents: readonly Expression[], mayBeEmpty: boolean): Expression {
    const full = choice(contents);
    const filled = sequence([literal(open), this.#space(), full, this.#space(), literal(close)]);
    return choice([...(mayBeEmpty ? [literal(open + close)] : []), filled]);
  }

  #number(type: 'integer' | 'number', { number: { low, high, multiplesOf }, pointer }: Facts): Expression {
    for (const bound of [low, high]) {
      if (bound?.isExclusive && Math.abs(bound.value) > Number.MAX_SAFE_INTEGER) {
        throw refuseFormat(pointer, `an exclusive bound of ${bound.value}`, 'bounds up to 2^53, or an inclusive one');
      }
    }
    const divisors = multiplesOf.filter(({ value }) => !(type === 'integer' && value === 1));
    if (divisors.length > 0) {
      const { value, pointer: place } = divisors[0]!;
      const isWhole = Number.isInteger(value) && value <= Number.MAX_SAFE_INTEGER;
      if (divisors.length > 1 || !isWhole) {
        throw refuseFormat(place, `multiples of ${value}`, 'one whole number');
      }
      return multiples(BigInt(value), wholeAbove(low), wholeBelow(high), place);
    }
    if (low === null && high === null) {
      return type === 'number' ? this.#anyNumber() : this.shared('any integer', () => INTEGER);
    }
    return type === 'number' ? numbersBetween(low, high) : integersBetween(wholeAbove(low), wholeBelow(high));
  }

  #string({ string: { min, max, patterns, formats }, pointer }: Facts): Expression {
    const conditions: Condition[] = patterns.map((said) => ({ regex: parseRegex(said.value, said.pointer, false) }));
    for (const said of formats) {
      if (OTHER_FORMATS.includes(said.value)) {
        throw refuseFormat(said.pointer, `"${said.value}"`, `one of ${[...STRING_FORMATS.keys()].join(', ')}, or none`);
      }
      const pattern = STRING_FORMATS.get(said.value);
      if (pattern !== undefined) conditions.push({ regex: parseRegex(pattern, said.pointer, true) });
    }
    if (min > max) return NOTHING;
    if (conditions.length === 0) {
      if (min === 0 && max === Number.POSITIVE_INFINITY) return this.#anyString();
      return this.shared(`string of ${min} to ${max}`, () => quoted(repeat(ANY_CHARACTER, min, max)));
    }
    const isFree = min === 0 && max === Number.POSITIVE_INFINITY;
    const content =
      conditions.length === 1 && isFree
        ? regexExpression(conditions[0]!.regex, stringCharacters)
        : automaton(conditions, { min, max }, stringCharacters, pointer);
    return quoted(content);
  }

  #array(document: SchemaDocument, { array: { min, max, first, rest } }: Facts, prefix: string): Expression {
    if (min > max) return NOTHING;
    // Items that nothing is said of are written only where they have to be.
    const others = rest ?? (first.length === 0 || min > first.length ? ANYTHING : null);
    const other = others === null ? NOTHING : this.#valueOf(document, others, prefix);
    if (first.length === 0) {
      return this.#brackets('[', ']', max === 0 ? [] : [this.#list(other, min, max)], min === 0);
    }
    const edges: Graph['edges'][number][] = [];
    const accepts: number[] = [];
    const most = Math.min(first.length, max);
    for (let at = 0; at < most; ++at) {
      const item = this.#valueOf(document, first[at]!, prefix);
      edges.push({ from: at, by: at === 0 ? item : sequence([this.#comma(), item]), to: at + 1 });
      if (at + 1 >= min) accepts.push(at + 1);
    }
    if (max > first.length && others !== null) {
      const more = repeat(sequence([this.#comma(), other]), Math.max(1, min - first.length), max - first.length);
      edges.push({ from: first.length, by: more, to: first.length + 1 });
      accepts.push(first.length + 1);
    }
    const graph: Expression = { kind: 'graph', graph: { states: first.length + 2, edges, accepts } };
    return this.#brackets('[', ']', most === 0 ? [] : [graph], min === 0);
  }

  #object(document: SchemaDocument, facts: Facts, prefix: string): Expression {
    const { parts, required, min, max } = facts.object;
    const names = [...new Set([...parts.flatMap(({ properties }) => [...properties.keys()]), ...required])];
    if (names.length > PROPERTIES_MAX) {
      throw refuseFormat(facts.pointer, `${names.length} properties`, `at most ${PROPERTIES_MAX}`);
    }
    const isOpen = parts.every(
      ({ properties, patterns, additional }) => additional === null && properties.size === 0 && patterns.length === 0,
    );
    const allowed = names.filter((name) => fitsNames(document, name, parts));
    if ([...required].some((name) => !allowed.includes(name))) return NOTHING;
    if (
      min === 0 &&
      max === Number.POSITIVE_INFINITY &&
      names.length === 0 &&
      isOpen &&
      parts.every(({ names }) => names === null)
    ) {
      return this.anyObject();
    }
    const extras = this.#extras(document, parts, names, isOpen, facts, prefix);
    this.#checkCounts(facts, allowed.length, extras !== NOTHING);
    // Two rows of states: before any member is written, and after; a comma stands between members.
    const last = allowed.length;
    const edges: Graph['edges'][number][] = [];
    for (const [at, name] of allowed.entries()) {
      const value = this.#valueOf(document, conditionsOf(name, parts), prefix);
      const written = sequence([constant(name), this.#colon(), value]);
      edges.push({ from: 2 * at, by: written, to: 2 * at + 3 });
      edges.push({ from: 2 * at + 1, by: sequence([this.#comma(), written]), to: 2 * at + 3 });
      if (required.has(name)) continue;
      edges.push({ from: 2 * at, by: EMPTY, to: 2 * at + 2 }, { from: 2 * at + 1, by: EMPTY, to: 2 * at + 3 });
    }
    edges.push({ from: 2 * last, by: extras, to: 2 * last + 1 });
    edges.push({ from: 2 * last + 1, by: sequence([this.#comma(), extras]), to: 2 * last + 1 });
    const graph: Expression = { kind: 'graph', graph: { states: 2 * last + 2, edges, accepts: [2 * last + 1] } };
    return this.#brackets('{', '}', [graph], required.size === 0 && min === 0);
  }

  /** Counts of properties hold by themselves or are refused: a name that comes twice counts once. */
  #checkCounts({ object: { min, max, required }, pointer }: Facts, named: number, hasExtras: boolean): void {
    const least = Math.max(required.size, min === 1 ? 1 : 0);
    if (min > least) {
      throw refuseFormat(
        `${pointer}/minProperties`,
        String(min),
        `at most the number of required properties, ${least}`,
      );
    }
    if (max < (hasExtras ? Number.POSITIVE_INFINITY : named)) {
      const found = hasExtras ? `${max} beside properties without names` : String(max);
      throw refuseFormat(`${pointer}/maxProperties`, found, 'a number that the named properties cannot exceed');
    }
  }

  /** Members that the schema does not name. */
  #extras(
    document: SchemaDocument,
    parts: readonly ObjectPart[],
    names: readonly string[],
    isOpen: boolean,
    facts: Facts,
    prefix: string,
  ): Expression {
    const patterns = [...new Set(parts.flatMap(({ patterns }) => patterns.map(([pattern]) => pattern)))];
    const closed = parts.some(({ additional }) => additional?.schema === false);
    const saysMore = parts.some(({ additional }) => additional !== null && additional.schema !== false);
    if (patterns.length === 0 && (closed || !(isOpen || saysMore))) return NOTHING;
    if (patterns.length > PATTERNS_MAX) {
      throw refuseFormat(facts.pointer, `${patterns.length} patterns of names`, `at most ${PATTERNS_MAX}`);
    }
    const options: Expression[] = [];
    // Each set of patterns that a name may match has its own conditions on the value.
    for (let matched = 0; matched < 1 << patterns.length; ++matched) {
      const isMatched = (pattern: string): boolean => ((matched >> patterns.indexOf(pattern)) & 1) === 1;
      const conditions = parts.flatMap((part) => {
        const own = part.patterns.filter(([pattern]) => isMatched(pattern)).map(([, schema]) => schema);
        return own.length > 0 || part.additional === null ? own : [part.additional];
      });
      if (conditions.some(({ schema }) => schema === false)) continue;
      // Patterns alone do not ask for other names.
      if (matched === 0 && !isOpen && !saysMore) continue;
      const name: Condition[] = [
        { regex: texts(names), isNegated: true },
        ...patterns.map((pattern) => ({
          regex: parseRegex(pattern, facts.pointer, false),
          isNegated: !isMatched(pattern),
        })),
        ...nameConditions(document, parts),
      ];
      const length = nameLength(document, parts);
      const spelled = quoted(automaton(name, length, plainCharacters, facts.pointer));
      options.push(sequence([spelled, this.#colon(), this.#valueOf(document, conditions, prefix)]));
    }
    return choice(options);
  }
}

/** What the parts say of the value of a property. */
function conditionsOf(name: string, parts: readonly ObjectPart[]): readonly Located[] {
  return parts.flatMap(({ properties, patterns, additional }) => {
    const own = properties.get(name);
    const matching = patterns
      .filter(([pattern, { pointer }]) => matches(pattern, name, pointer))
      .map(([, schema]) => schema);
    const all = [...(own === undefined ? [] : [own]), ...matching];
    return all.length > 0 || additional === null ? all : [additional];
  });
}

/** Whether a text matches a pattern, as the automaton understands it. */
function matches(pattern: string, text: string, place: string): boolean {
  return isPossible([{ regex: parseRegex(pattern, place, false) }, { regex: texts([text]) }], place);
}

/** propertyNames as far as it speaks of patterns, lengths and values. */
function nameFacts(document: SchemaDocument, parts: readonly ObjectPart[]): Facts | null {
  const all = parts.flatMap(({ names }) => (names === null ? [] : [names]));
  if (all.length === 0) return null;
  const alternatives = document.alternatives(all);
  const pointer = all[0]!.pointer;
  if (alternatives.length !== 1) throw refuseFormat(pointer, 'alternatives', 'one schema of patterns and lengths');
  const facts = readFacts(document, alternatives[0]!);
  if (facts.string.formats.length > 0) throw refuseFormat(`${pointer}/format`, 'a format of names', 'a pattern');
  return facts;
}

function nameConditions(document: SchemaDocument, parts: readonly ObjectPart[]): Condition[] {
  const facts = nameFacts(document, parts);
  if (facts === null) return [];
  const values = facts.values?.filter((value) => typeof value === 'string');
  return [
    ...(facts.types.has('string') ? [] : [{ regex: texts([]) }]),
    ...facts.string.patterns.map(({ value, pointer }) => ({ regex: parseRegex(value, pointer, false) })),
    ...(values === undefined ? [] : [{ regex: texts(values) }]),
  ];
}

function nameLength(document: SchemaDocument, parts: readonly ObjectPart[]): { min: number; max: number } {
  const facts = nameFacts(document, parts);
  return { min: facts?.string.min ?? 0, max: facts?.string.max ?? Number.POSITIVE_INFINITY };
}

function fitsNames(document: SchemaDocument, name: string, parts: readonly ObjectPart[]): boolean {
  const facts = nameFacts(document, parts);
  return facts === null || (valueFits(name, facts) && (facts.values === null || facts.values.includes(name)));
}

/** Whole numbers between bounds that a divisor leaves no rest of. */
function multiples(divisor: bigint, low: bigint | null, high: bigint | null, place: string): Expression {
  if (low !== null && high !== null) {
    const first = (low >= 0n ? (low + divisor - 1n) / divisor : -(-low / divisor)) * divisor;
    if ((high - first) / divisor < BigInt(MULTIPLES_MAX)) {
      const all: string[] = [];
      for (let value = first; value <= high; value += divisor) all.push(value.toString());
      return all.length === 0 ? NOTHING : literals(all);
    }
  }
  const isPositive = low !== null && low >= 0n && low <= divisor;
  if (high !== null || divisor > BigInt(DIVISOR_MAX) || (low !== null && !isPositive)) {
    const needed = `at most ${MULTIPLES_MAX} of them between two bounds, or a divisor up to ${DIVISOR_MAX} without bounds`;
    throw refuseFormat(place, `multiples of ${divisor}`, needed);
  }
  const digits = divisibleDigits(Number(divisor));
  return choice([
    ...(low === null || low <= 0n ? [literal('0')] : []),
    sequence([low === null ? optional(literal('-')) : EMPTY, digits]),
  ]);
}

/** Digits of the multiples of a number, from 1 on: a state for each rest and number of digits. */
function divisibleDigits(divisor: number): Expression {
  const edges: Graph['edges'][number][] = [];
  for (let digit = 0; digit < 10; ++digit) {
    const by = literal(String(digit));
    if (digit > 0) edges.push({ from: 0, by, to: 1 + (digit % divisor) });
    for (let count = 1; count < MULTIPLE_DIGITS; ++count) {
      const from = 1 + (count - 1) * divisor;
      for (let rest = 0; rest < divisor; ++rest) {
        edges.push({ from: from + rest, by, to: from + divisor + ((rest * 10 + digit) % divisor) });
      }
    }
  }
  const accepts = Array.from({ length: MULTIPLE_DIGITS }, (_, count) => 1 + count * divisor);
  return { kind: 'graph', graph: { states: 1 + MULTIPLE_DIGITS * divisor, edges, accepts } };
}
