/**
 * Checks a JSON value against a schema once, at the boundary. The schemas are plain JSON Schema data; their TypeScript
 * types come from typebox at compile time only. The checker is our own few lines because a schema compiler and a
 * schema builder took 15 MB of resident memory here (ajv 7, typebox 8), and the budget covers the process.
 */
import type { XStatic } from 'typebox/schema';
import { MoestroError } from '../errors.js';

/** The keywords this checker knows. */
export interface Schema {
  readonly type?: 'object' | 'array' | 'string' | 'number' | 'integer' | 'boolean';
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  /** Of an object used as a map. */
  readonly additionalProperties?: Schema;
  readonly items?: Schema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly enum?: readonly string[];
  readonly anyOf?: readonly Schema[];
}

/**
 * A copy of `value` with the properties the schema names. Unknown properties are left out, and so are optional ones
 * that are null: clients send null for whatever they do not set.
 *
 * @param path of the value in the body, for errors: "messages[0].content".
 * @throws {MoestroError} INVALID_REQUEST with the path as details.param, what was found and what was needed.
 */
export function check<const S extends Schema>(schema: S, value: unknown, path = ''): XStatic<S> {
  return checked(schema, value, path) as XStatic<S>;
}

/** Names of top-level properties that the schema does not know. */
export function unknownProperties(schema: Schema, value: object): readonly string[] {
  return Object.keys(value).filter((name) => !Object.hasOwn(schema.properties ?? {}, name));
}

function checked(schema: Schema, value: unknown, path: string): unknown {
  if (schema.anyOf !== undefined) {
    const fitting = schema.anyOf.filter((option) => isOfType(option, value));
    if (fitting.length !== 1) return refuse(schema, value, path);
    return checked(fitting[0]!, value, path);
  }
  if (!isOfType(schema, value)) return refuse(schema, value, path);
  if (typeof value === 'number') {
    const { minimum = Number.NEGATIVE_INFINITY, maximum = Number.POSITIVE_INFINITY } = schema;
    return value >= minimum && value <= maximum ? value : refuse(schema, value, path);
  }
  if (typeof value === 'string') {
    return schema.enum === undefined || schema.enum.includes(value) ? value : refuse(schema, value, path);
  }
  if (Array.isArray(value)) return checkedItems(schema, value, path);
  if (isObject(value)) return checkedProperties(schema, value, path);
  return value;
}

function checkedItems(schema: Schema, value: readonly unknown[], path: string): unknown {
  const { minItems = 0, maxItems = Number.POSITIVE_INFINITY, items } = schema;
  if (value.length < minItems || value.length > maxItems) {
    const most = maxItems === Number.POSITIVE_INFINITY ? '' : ` to ${maxItems}`;
    throw invalid(path, `${value.length} items`, `${minItems}${most || ' or more'}`);
  }
  return items === undefined ? value : value.map((item, index) => checked(items, item, `${path}[${index}]`));
}

function checkedProperties(schema: Schema, value: Readonly<Record<string, unknown>>, path: string): unknown {
  const at = (name: string) => (path === '' ? name : `${path}.${name}`);
  const of = schema.additionalProperties;
  if (of !== undefined) {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, checked(of, item, at(name))]));
  }
  if (schema.properties === undefined) return value;
  const result: Record<string, unknown> = {};
  for (const [name, property] of Object.entries(schema.properties)) {
    const item = Object.hasOwn(value, name) ? value[name] : undefined;
    const isRequired = schema.required?.includes(name) ?? false;
    if (isRequired || (item !== undefined && item !== null)) result[name] = checked(property, item, at(name));
  }
  return result;
}

function isOfType(schema: Schema, value: unknown): boolean {
  switch (schema.type) {
    case undefined:
      return value !== undefined;
    case 'object':
      return isObject(value);
    case 'array':
      return Array.isArray(value);
    case 'integer':
      return Number.isSafeInteger(value);
    case 'number':
      return Number.isFinite(value);
    default:
      // The remaining schema types are names of JavaScript types.
      return typeof value === schema.type;
  }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function refuse(schema: Schema, value: unknown, path: string): never {
  throw invalid(path, shown(value), described(schema));
}

/** An INVALID_REQUEST for one place in the body. */
export function invalid(path: string, found: string, needed: string): MoestroError {
  const what = path === '' ? 'the request body' : `"${path}"`;
  return new MoestroError('INVALID_REQUEST', `Cannot use ${what}: found ${found}, needed ${needed}`, {
    param: path === '' ? null : path,
  });
}

const SHOWN_LENGTH = 60;

/** A value as an error quotes it, cut to a line. */
export function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  let text: string;
  try {
    text = JSON.stringify(value);
  } catch {
    // Nested deeper than the stack: JSON.parse has none to overflow.
    return Array.isArray(value) ? 'a list nested too deep' : 'an object nested too deep';
  }
  return text.length <= SHOWN_LENGTH ? text : `${text.slice(0, SHOWN_LENGTH)}...`;
}

function described(schema: Schema): string {
  if (schema.anyOf !== undefined) return schema.anyOf.map(described).join(' or ');
  if (schema.enum !== undefined) return `one of ${schema.enum.map((item) => `"${item}"`).join(', ')}`;
  const { minimum, maximum } = schema;
  const range =
    minimum !== undefined && maximum !== undefined
      ? ` from ${minimum} to ${maximum}`
      : minimum !== undefined
        ? ` of ${minimum} or more`
        : '';
  switch (schema.type) {
    case 'integer':
      return `a whole number${range}`;
    case 'number':
      return `a number${range}`;
    case 'object':
      return 'an object';
    case 'array':
      return schema.items === undefined ? 'a list' : `a list of which each is ${described(schema.items)}`;
    case 'string':
      return 'a string';
    case 'boolean':
      return 'true or false';
    default:
      return 'a value';
  }
}
