/** One JSON Schema as a document: its parts by pointer, references followed, alternatives multiplied out. */
import { ALTERNATIVES_MAX, SOURCE_LENGTH_MAX } from './limits.js';
import { refuseFormat } from './refuse.js';

export type SchemaObject = Readonly<Record<string, unknown>>;

/** A part of the document; its pointer names it. */
export interface Located {
  readonly schema: SchemaObject | boolean;
  readonly pointer: string;
}

/** Objects that all hold together, free of references and alternatives. */
export type Alternative = readonly { readonly schema: SchemaObject; readonly pointer: string }[];

/** Levels of JSON in a schema at most. */
export const DEPTH_MAX = 256;
/** References and alternatives that lead to each other without a value in between. */
const CHAIN_MAX = 256;
/** Pairs of alternatives that are looked at in one document. */
const STEPS_MAX = 100_000;

const isObject = (value: unknown): value is SchemaObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export const escapePointer = (key: string): string => key.replaceAll('~', '~0').replaceAll('/', '~1');

export class SchemaDocument {
  readonly root: Located;
  readonly #source: unknown;
  readonly #expanded = new Map<string, readonly Alternative[]>();
  readonly #open = new Set<string>();
  /** oneOf whose branches have to exclude each other: checked once everything is known. */
  readonly exclusive = new Map<string, readonly Located[]>();
  #steps = 0;

  /** @throws {MoestroError} UNSUPPORTED_FORMAT when it is no schema, too long or too deep. */
  constructor(source: unknown) {
    if (depthOf(source) > DEPTH_MAX)
      throw refuseFormat('#', `JSON nested deeper than ${DEPTH_MAX}`, 'a flatter schema');
    const length = JSON.stringify(source)?.length ?? 0;
    if (length > SOURCE_LENGTH_MAX) {
      throw refuseFormat('#', `a schema of ${length} characters`, `at most ${SOURCE_LENGTH_MAX}`);
    }
    this.#source = source;
    this.root = this.locate(source, '#');
  }

  locate(schema: unknown, pointer: string): Located {
    if (isObject(schema) || typeof schema === 'boolean') return { schema, pointer };
    throw refuseFormat(pointer, shown(schema), 'a schema: an object, true or false');
  }

  /** A list of schemas below `pointer`. */
  list(value: unknown, pointer: string): Located[] {
    if (!Array.isArray(value)) throw refuseFormat(pointer, shown(value), 'a list of schemas');
    return value.map((item, index) => this.locate(item, `${pointer}/${index}`));
  }

  /** What all of `parts` together allow, as alternatives. */
  alternatives(parts: readonly Located[]): readonly Alternative[] {
    return parts.reduce<readonly Alternative[]>(
      (all, part) => this.#product(all, this.#expand(part), part.pointer),
      [[]],
    );
  }

  #expand({ schema, pointer }: Located): readonly Alternative[] {
    if (schema === true) return [[]];
    if (schema === false) return [];
    const known = this.#expanded.get(pointer);
    if (known !== undefined) return known;
    if (this.#open.has(pointer)) {
      throw refuseFormat(pointer, 'a reference that leads back to itself', 'a schema that some value ends');
    }
    if (this.#open.size >= CHAIN_MAX)
      throw refuseFormat(pointer, `more than ${CHAIN_MAX} references in a row`, 'fewer');
    this.#open.add(pointer);
    let all: readonly Alternative[] = [[{ schema, pointer }]];
    if (schema.$ref !== undefined) {
      all = this.#product(all, this.#expand(this.#resolve(schema.$ref, `${pointer}/$ref`)), pointer);
    }
    if (schema.allOf !== undefined) {
      for (const part of this.list(schema.allOf, `${pointer}/allOf`))
        all = this.#product(all, this.#expand(part), pointer);
    }
    for (const keyword of ['anyOf', 'oneOf']) {
      if (schema[keyword] === undefined) continue;
      const branches = this.list(schema[keyword], `${pointer}/${keyword}`);
      if (keyword === 'oneOf') this.exclusive.set(`${pointer}/oneOf`, branches);
      all = this.#product(
        all,
        branches.flatMap((branch) => this.#expand(branch)),
        `${pointer}/${keyword}`,
      );
    }
    this.#open.delete(pointer);
    this.#expanded.set(pointer, all);
    return all;
  }

  #product(a: readonly Alternative[], b: readonly Alternative[], pointer: string): readonly Alternative[] {
    this.#steps += a.length * b.length;
    if (a.length * b.length > ALTERNATIVES_MAX || this.#steps > STEPS_MAX) {
      throw refuseFormat(pointer, `more than ${ALTERNATIVES_MAX} combinations of alternatives`, 'fewer');
    }
    return a.flatMap((left) =>
      b.map((right) => [...left, ...right.filter((part) => !left.some(({ pointer }) => pointer === part.pointer))]),
    );
  }

  #resolve(reference: unknown, place: string): Located {
    const id = isObject(this.#source) && typeof this.#source.$id === 'string' ? this.#source.$id : '';
    if (typeof reference !== 'string') throw refuseFormat(place, shown(reference), 'a text');
    const local = id !== '' && reference.startsWith(id) ? reference.slice(id.length) || '#' : reference;
    if (local === '#') return this.root;
    if (!local.startsWith('#/')) {
      throw refuseFormat(place, `a reference to "${reference}"`, 'one within the schema, such as "#/$defs/name"');
    }
    let value: unknown = this.#source;
    let pointer = '#';
    for (const part of decodeFragment(local.slice(2), place).split('/')) {
      const key = part.replaceAll('~1', '/').replaceAll('~0', '~');
      const isThere = typeof value === 'object' && value !== null && Object.hasOwn(value, key);
      if (!isThere) throw refuseFormat(place, `a reference to "${reference}", which is not there`, 'one that is');
      value = (value as SchemaObject)[key];
      pointer = `${pointer}/${escapePointer(key)}`;
    }
    return this.locate(value, pointer);
  }
}

function decodeFragment(text: string, place: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    if (!(cause instanceof URIError)) throw cause;
    throw refuseFormat(place, `a reference that is no URI`, 'percent signs followed by two hex digits');
  }
}

/** Levels of a JSON value; stops counting above what a schema may have. */
export function depthOf(value: unknown): number {
  let depth = 0;
  let level: unknown[] = [value];
  while (level.length > 0 && depth <= DEPTH_MAX) {
    level = level.flatMap((item) => (typeof item === 'object' && item !== null ? Object.values(item) : []));
    depth++;
  }
  return depth;
}

const SHOWN_LENGTH = 60;

/** A value as an error quotes it. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= SHOWN_LENGTH ? text : `${text.slice(0, SHOWN_LENGTH)}...`;
}
