/** What several schema objects say together about one value, type by type. */
import type { Bound } from './number-ranges.js';
import { refuseFormat } from './refuse.js';
import {
  type Alternative,
  escapePointer,
  type Located,
  type SchemaDocument,
  type SchemaObject,
  shown,
} from './schema-document.js';

export type TypeName = 'null' | 'boolean' | 'integer' | 'number' | 'string' | 'array' | 'object';
const TYPES: readonly TypeName[] = ['null', 'boolean', 'integer', 'number', 'string', 'array', 'object'];
const ALL_TYPES: readonly TypeName[] = ['null', 'boolean', 'number', 'string', 'array', 'object'];

export interface Facts {
  /** "number" covers "integer". */
  readonly types: ReadonlySet<TypeName>;
  /** From enum and const; null for any. */
  readonly values: readonly unknown[] | null;
  readonly string: {
    readonly min: number;
    readonly max: number;
    readonly patterns: readonly Said<string>[];
    readonly formats: readonly Said<string>[];
  };
  readonly number: {
    readonly low: Bound | null;
    readonly high: Bound | null;
    readonly multiplesOf: readonly Said<number>[];
  };
  readonly array: {
    readonly min: number;
    readonly max: number;
    /** Conditions on each of the first items, and on the rest; null where nothing is said of the rest. */
    readonly first: readonly (readonly Located[])[];
    readonly rest: readonly Located[] | null;
  };
  readonly object: {
    readonly min: number;
    readonly max: number;
    readonly required: ReadonlySet<string>;
    readonly parts: readonly ObjectPart[];
  };
  /** Types that keywords speak of where no `type` is given. */
  readonly spokenOf: ReadonlySet<TypeName>;
  readonly pointer: string;
}

interface Said<T> {
  readonly value: T;
  readonly pointer: string;
}

/** What one schema object says of the properties of an object. */
export interface ObjectPart {
  readonly pointer: string;
  readonly properties: ReadonlyMap<string, Located>;
  readonly patterns: readonly (readonly [pattern: string, schema: Located])[];
  /** null where it is absent. */
  readonly additional: Located | null;
  readonly names: Located | null;
}

/** Keywords that would change which values are valid and that are not built. */
const REFUSED: readonly string[] = [
  'not',
  'if',
  'then',
  'else',
  'contains',
  'minContains',
  'maxContains',
  'dependentRequired',
  'dependentSchemas',
  'dependencies',
  'unevaluatedProperties',
  'unevaluatedItems',
  '$dynamicRef',
  '$recursiveRef',
];

const KEYWORD_TYPES: readonly (readonly [TypeName, readonly string[]])[] = [
  [
    'object',
    [
      'properties',
      'required',
      'additionalProperties',
      'patternProperties',
      'propertyNames',
      'minProperties',
      'maxProperties',
    ],
  ],
  ['array', ['items', 'prefixItems', 'minItems', 'maxItems']],
  ['string', ['minLength', 'maxLength', 'pattern', 'format']],
  ['number', ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf']],
];

/** @throws {MoestroError} UNSUPPORTED_FORMAT naming the keyword that is malformed or not supported. */
export function readFacts(document: SchemaDocument, alternative: Alternative): Facts {
  let types = new Set<TypeName>(ALL_TYPES);
  let values: readonly unknown[] | null = null;
  const string = {
    min: 0,
    max: Number.POSITIVE_INFINITY,
    patterns: [] as Said<string>[],
    formats: [] as Said<string>[],
  };
  const number = { low: null as Bound | null, high: null as Bound | null, multiplesOf: [] as Said<number>[] };
  const arrays: { first: readonly Located[]; rest: Located | null }[] = [];
  const array = { min: 0, max: Number.POSITIVE_INFINITY };
  const object = { min: 0, max: Number.POSITIVE_INFINITY, required: new Set<string>(), parts: [] as ObjectPart[] };
  const spokenOf = new Set<TypeName>();
  for (const { schema, pointer } of alternative) {
    refuseUnsupported(schema, pointer);
    const read = new Reader(schema, pointer);
    types = intersectTypes(types, read.types());
    values = intersectValues(values, read.values());
    for (const [type, keywords] of KEYWORD_TYPES) if (keywords.some((keyword) => read.has(keyword))) spokenOf.add(type);
    string.min = Math.max(string.min, read.count('minLength', 0));
    string.max = Math.min(string.max, read.count('maxLength', Number.POSITIVE_INFINITY));
    string.patterns.push(...read.texts('pattern'));
    string.formats.push(...read.texts('format'));
    number.low = stricter(number.low, read.bounds('minimum', 'exclusiveMinimum'), 1);
    number.high = stricter(number.high, read.bounds('maximum', 'exclusiveMaximum'), -1);
    number.multiplesOf.push(...read.multiple());
    array.min = Math.max(array.min, read.count('minItems', 0));
    array.max = Math.min(array.max, read.count('maxItems', Number.POSITIVE_INFINITY));
    arrays.push(readItems(document, schema, pointer));
    object.min = Math.max(object.min, read.count('minProperties', 0));
    object.max = Math.min(object.max, read.count('maxProperties', Number.POSITIVE_INFINITY));
    for (const name of read.names('required')) object.required.add(name);
    const part = readObject(document, schema, pointer);
    if (part !== null) object.parts.push(part);
  }
  const places = Math.max(0, ...arrays.map(({ first }) => first.length));
  const rests = arrays.flatMap(({ rest }) => (rest === null ? [] : [rest]));
  return {
    types,
    values,
    string,
    number,
    array: {
      ...array,
      first: Array.from({ length: places }, (_, at) =>
        arrays.flatMap(({ first, rest }) => (at < first.length ? [first[at]!] : rest === null ? [] : [rest])),
      ),
      rest: rests.length === 0 ? null : rests,
    },
    object,
    spokenOf,
    pointer: alternative[0]?.pointer ?? '#',
  };
}

function refuseUnsupported(schema: SchemaObject, pointer: string): void {
  for (const keyword of REFUSED) {
    if (schema[keyword] !== undefined) {
      throw refuseFormat(
        `${pointer}/${escapePointer(keyword)}`,
        'a keyword that is not supported',
        'a schema without it',
      );
    }
  }
  if (schema.uniqueItems !== undefined && schema.uniqueItems !== false) {
    throw refuseFormat(`${pointer}/uniqueItems`, shown(schema.uniqueItems), 'false, or a schema without it');
  }
  if (schema.$id !== undefined && pointer !== '#') {
    throw refuseFormat(`${pointer}/$id`, shown(schema.$id), '$id at the root only');
  }
}

/** Keywords of one schema object, each checked for its form. */
class Reader {
  readonly #schema: SchemaObject;
  readonly #pointer: string;

  constructor(schema: SchemaObject, pointer: string) {
    this.#schema = schema;
    this.#pointer = pointer;
  }

  has(keyword: string): boolean {
    return this.#schema[keyword] !== undefined;
  }

  #refuse(keyword: string, needed: string): Error {
    return refuseFormat(`${this.#pointer}/${keyword}`, shown(this.#schema[keyword]), needed);
  }

  types(): ReadonlySet<TypeName> {
    const { type, nullable } = this.#schema;
    if (type === undefined) return new Set(ALL_TYPES);
    const names: readonly unknown[] = Array.isArray(type) ? type : [type];
    if (names.some((name) => !TYPES.includes(name as TypeName))) {
      throw this.#refuse('type', `one or more of ${TYPES.join(', ')}`);
    }
    const types = new Set(names as readonly TypeName[]);
    // OpenAPI's word for it.
    if (nullable === true) types.add('null');
    if (types.has('number')) types.delete('integer');
    return types;
  }

  values(): readonly unknown[] | null {
    const { enum: options, const: only } = this.#schema;
    if (options !== undefined && !Array.isArray(options)) throw this.#refuse('enum', 'a list of values');
    const all = options === undefined ? null : (options as readonly unknown[]);
    return only === undefined ? all : intersectValues(all, [only]);
  }

  count(keyword: string, absent: number): number {
    const value = this.#schema[keyword];
    if (value === undefined) return absent;
    if (!Number.isInteger(value) || (value as number) < 0) throw this.#refuse(keyword, 'a whole number of 0 or more');
    return value as number;
  }

  #number(keyword: string): number | null {
    const value = this.#schema[keyword];
    if (value === undefined || typeof value === 'boolean') return null;
    if (typeof value !== 'number' || !Number.isFinite(value)) throw this.#refuse(keyword, 'a number');
    return value;
  }

  bounds(inclusive: string, exclusive: string): readonly Bound[] {
    const bounds: Bound[] = [];
    const bound = this.#number(inclusive);
    // Draft 4: a flag beside the bound.
    if (bound !== null) bounds.push({ value: bound, isExclusive: this.#schema[exclusive] === true });
    const strict = this.#number(exclusive);
    if (strict !== null) bounds.push({ value: strict, isExclusive: true });
    return bounds;
  }

  multiple(): readonly Said<number>[] {
    const value = this.#number('multipleOf');
    if (value === null) return [];
    if (value <= 0) throw this.#refuse('multipleOf', 'a number above 0');
    return [{ value, pointer: `${this.#pointer}/multipleOf` }];
  }

  texts(keyword: string): readonly Said<string>[] {
    const value = this.#schema[keyword];
    if (value === undefined) return [];
    if (typeof value !== 'string') throw this.#refuse(keyword, 'a text');
    return [{ value, pointer: `${this.#pointer}/${keyword}` }];
  }

  names(keyword: string): readonly string[] {
    const value = this.#schema[keyword];
    // Draft 3 and OpenAPI 2 have a flag on the property itself.
    if (value === undefined || typeof value === 'boolean') return [];
    if (!Array.isArray(value) || value.some((name) => typeof name !== 'string')) {
      throw this.#refuse(keyword, 'a list of names');
    }
    return value as readonly string[];
  }
}

function intersectTypes(a: ReadonlySet<TypeName>, b: ReadonlySet<TypeName>): Set<TypeName> {
  const both = new Set<TypeName>();
  for (const type of a) {
    if (b.has(type)) both.add(type);
    else if (type === 'integer' && b.has('number')) both.add(type);
    else if (type === 'number' && b.has('integer')) both.add('integer');
  }
  return both;
}

/** A value as text that equal values share: the names of objects in order. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([name, item]) => `${JSON.stringify(name)}:${canonical(item)}`).join()}}`;
}

function intersectValues(a: readonly unknown[] | null, b: readonly unknown[] | null): readonly unknown[] | null {
  if (a === null || b === null) return a ?? b;
  const known = new Set(b.map(canonical));
  return a.filter((value) => known.has(canonical(value)));
}

/** @param sign 1 where the greater bound is stricter, -1 where the lesser is. */
function stricter(known: Bound | null, others: readonly Bound[], sign: number): Bound | null {
  let best = known;
  for (const bound of others) {
    const difference = best === null ? 1 : (bound.value - best.value) * sign;
    if (difference > 0 || (difference === 0 && bound.isExclusive)) best = bound;
  }
  return best;
}

function readItems(document: SchemaDocument, schema: SchemaObject, pointer: string) {
  const { items, prefixItems, additionalItems } = schema;
  // Before 2020-12 a list in `items` was what prefixItems is now, and additionalItems spoke of the rest.
  if (Array.isArray(items)) {
    return {
      first: document.list(items, `${pointer}/items`),
      rest: additionalItems === undefined ? null : document.locate(additionalItems, `${pointer}/additionalItems`),
    };
  }
  return {
    first: prefixItems === undefined ? [] : document.list(prefixItems, `${pointer}/prefixItems`),
    rest: items === undefined ? null : document.locate(items, `${pointer}/items`),
  };
}

function readObject(document: SchemaDocument, schema: SchemaObject, pointer: string): ObjectPart | null {
  const entries = (keyword: string): [string, Located][] => {
    const value = schema[keyword];
    if (value === undefined) return [];
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw refuseFormat(`${pointer}/${keyword}`, shown(value), 'an object of schemas');
    }
    return Object.entries(value).map(([key, item]) => [
      key,
      document.locate(item, `${pointer}/${keyword}/${escapePointer(key)}`),
    ]);
  };
  const optional = (keyword: string): Located | null =>
    schema[keyword] === undefined ? null : document.locate(schema[keyword], `${pointer}/${keyword}`);
  const part = {
    pointer,
    properties: new Map(entries('properties')),
    patterns: entries('patternProperties'),
    additional: optional('additionalProperties'),
    names: optional('propertyNames'),
  };
  const saysNothing =
    schema.properties === undefined && part.patterns.length === 0 && part.additional === null && part.names === null;
  return saysNothing ? null : part;
}
