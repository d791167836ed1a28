/** JSON Schemas over the subset of docs/constrained.md, from a seed. */
import { Random } from '../../src/engine/random.js';

type Schema = Record<string, unknown> | boolean;
const NAMES = ['id', 'name', 'a "quoted" name', 'größe', 'tags', 'x/y', 'kind', 'value', 'items', '~', 'date', ''];
const FORMATS = [
  'date',
  'time',
  'date-time',
  'duration',
  'email',
  'hostname',
  'ipv4',
  'ipv6',
  'uuid',
  'uri',
  'json-pointer',
];
const PATTERNS = [
  '^[A-Z]{2,4}-\\d{1,3}$',
  '^(foo|ba[rz])+$',
  'x',
  '^\\S+$',
  '^"?[\\w.]*\\\\$',
  '^[^a-z]{3,}',
  '[0-9]$',
  '^(?:a|é|漢){1,40}$',
];

export function randomSchema(seed: number): Schema {
  return new SchemaMaker(seed).root();
}

class SchemaMaker {
  readonly #random: Random;
  readonly #definitions: Record<string, Schema> = {};

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  root(): Schema {
    const schema = this.#schema(3);
    if (typeof schema === 'boolean') return schema;
    const hasDefinitions = Object.keys(this.#definitions).length > 0;
    return hasDefinitions ? { ...schema, $defs: this.#definitions } : schema;
  }

  #below(count: number): number {
    return Math.floor(this.#random.next() * count);
  }

  #maybe(share = 0.5): boolean {
    return this.#random.next() < share;
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#below(list.length)]!;
  }

  #schema(depth: number): Schema {
    const makers = [
      () => this.#string(),
      () => this.#string(),
      () => this.#integer(),
      () => this.#number(),
      () => ({ type: this.#pick(['boolean', 'null']) }),
      () => this.#values(),
      () => ({ type: ['string', 'integer', 'null'].slice(this.#below(2)), maxLength: 5, minimum: 3 }),
      () => (this.#maybe(0.3) ? this.#pick([{}, true]) : { type: 'integer', nullable: true }),
    ];
    const deep = [
      () => this.#object(depth - 1),
      () => this.#object(depth - 1),
      () => this.#object(depth - 1),
      () => this.#array(depth - 1),
      () => this.#array(depth - 1),
      () => ({ anyOf: [this.#schema(depth - 1), this.#schema(depth - 1), { type: 'null' }] }),
      () => this.#oneOf(depth - 1),
      () => this.#allOf(depth - 1),
      () => this.#recursive(depth - 1),
    ];
    const made = depth > 0 && this.#maybe(0.8) ? this.#pick(deep)() : this.#pick(makers)();
    // What explains a schema changes nothing.
    return typeof made === 'object' && this.#maybe(0.1) ? { ...made, title: 'T', description: 'D', default: 1 } : made;
  }

  #string(): Schema {
    const min = this.#maybe(0.3) ? this.#below(20) : undefined;
    const max = this.#maybe(0.4) ? (min ?? 0) + this.#below(60) : undefined;
    const lengths = {
      ...(min === undefined ? {} : { minLength: min }),
      ...(max === undefined ? {} : { maxLength: max }),
    };
    switch (this.#below(4)) {
      case 0:
        return { type: 'string', format: this.#pick(FORMATS) };
      case 1:
        return {
          type: 'string',
          pattern: this.#pick(PATTERNS),
          ...(this.#maybe(0.3) ? { maxLength: 20 + this.#below(20) } : {}),
        };
      default:
        return { type: 'string', ...lengths };
    }
  }

  #integer(): Schema {
    const low = this.#below(2000) - 1000;
    const high = low + this.#below(this.#maybe() ? 10 : 100_000);
    const bounds = [
      {},
      { minimum: low },
      { maximum: high },
      { minimum: low, maximum: high },
      { exclusiveMinimum: low, exclusiveMaximum: high + 2 },
      { multipleOf: 1 + this.#below(20) },
      { minimum: low, maximum: low + 50, multipleOf: 7 },
    ];
    return { type: 'integer', ...this.#pick(bounds) };
  }

  #number(): Schema {
    const low = (this.#below(2000) - 1000) / this.#pick([1, 4, 10, 1000]);
    const high = low + this.#below(500) / this.#pick([1, 8, 100]) + 0.5;
    const bounds = [
      {},
      { minimum: low },
      { maximum: high },
      { minimum: low, maximum: high },
      { exclusiveMinimum: low },
    ];
    return { type: 'number', ...this.#pick(bounds) };
  }

  #values(): Schema {
    const values = ['red', 'green', 'a "b"\n', 'é', '', 0, -1.5, 1e21, null, true, { a: [1, 'x'] }, [1, 2]];
    const some = values.filter(() => this.#maybe(0.4));
    return this.#maybe(0.3) || some.length === 0 ? { const: this.#pick(values) } : { enum: some };
  }

  #object(depth: number): Schema {
    const names = NAMES.filter(() => this.#maybe(0.35));
    const properties = Object.fromEntries(names.map((name) => [name, this.#schema(depth)]));
    const required = names.filter(() => this.#maybe(0.6));
    const additional = this.#pick([
      {},
      {},
      { additionalProperties: false },
      { additionalProperties: { type: 'integer' } },
    ]);
    const patterns = this.#maybe(0.15)
      ? { patternProperties: { '^x-': this.#string(), '\\d$': { type: ['string', 'null'] } } }
      : {};
    const isRequired = this.#maybe(0.8);
    const counts = isRequired && this.#maybe(0.1) ? { minProperties: required.length } : {};
    const propertyNames = this.#maybe(0.05) ? { propertyNames: { maxLength: 12 } } : {};
    return {
      type: 'object',
      properties,
      ...(isRequired ? { required } : {}),
      ...additional,
      ...patterns,
      ...counts,
      ...propertyNames,
    };
  }

  #array(depth: number): Schema {
    const min = this.#maybe(0.4) ? this.#below(4) : undefined;
    const max = this.#maybe(0.5) ? (min ?? 0) + this.#below(5) : undefined;
    const bounds = { ...(min === undefined ? {} : { minItems: min }), ...(max === undefined ? {} : { maxItems: max }) };
    if (this.#maybe(0.7)) return { type: 'array', items: this.#schema(depth), ...bounds };
    const prefixItems = [this.#schema(depth), this.#schema(depth)];
    return { type: 'array', prefixItems, ...this.#pick([{}, { items: false }, { items: this.#schema(0) }]), ...bounds };
  }

  #oneOf(depth: number): Schema {
    if (this.#maybe()) return { oneOf: [{ type: 'string', maxLength: 9 }, { type: 'integer' }, { type: 'boolean' }] };
    const branch = (kind: string): Schema => ({
      type: 'object',
      properties: { kind: { const: kind }, value: this.#schema(depth) },
      required: ['kind', 'value'],
    });
    return { oneOf: [branch('a'), branch('b'), branch('c')] };
  }

  #allOf(depth: number): Schema {
    if (this.#maybe())
      return { allOf: [{ type: 'integer', minimum: -5 }, { maximum: 100 + this.#below(9) }, { type: 'number' }] };
    return {
      allOf: [
        {
          type: 'object',
          properties: { a: this.#schema(depth), both: { type: 'string', minLength: 2 } },
          required: ['both'],
        },
        { properties: { b: this.#schema(depth), both: { maxLength: 8 } }, required: ['b'] },
      ],
    };
  }

  /** A list of itself, reached through $defs. */
  #recursive(depth: number): Schema {
    const name = `node${Object.keys(this.#definitions).length}`;
    this.#definitions[name] = true;
    this.#definitions[name] = {
      type: 'object',
      properties: {
        value: this.#schema(Math.min(depth, 1)),
        next: { anyOf: [{ type: 'null' }, { $ref: `#/$defs/${name}` }] },
      },
      required: ['value', 'next'],
    };
    return { $ref: `#/$defs/${name}` };
  }
}
