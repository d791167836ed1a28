/** What a format is between its source and its automaton: expressions over bytes, and rules that call each other. */

export type ByteRanges = readonly (readonly [first: number, last: number])[];

export type Expression =
  /** One byte of these. No ranges at all: nothing matches. */
  | { readonly kind: 'bytes'; readonly ranges: ByteRanges }
  /** Without parts: the empty text. */
  | { readonly kind: 'sequence'; readonly parts: readonly Expression[] }
  | { readonly kind: 'choice'; readonly options: readonly Expression[] }
  /** `max` may be Infinity. */
  | { readonly kind: 'repeat'; readonly body: Expression; readonly min: number; readonly max: number }
  | { readonly kind: 'rule'; readonly rule: number }
  /** An automaton with expressions on its edges; it starts in state 0. */
  | { readonly kind: 'graph'; readonly graph: Graph };

export interface Graph {
  readonly states: number;
  readonly edges: readonly { readonly from: number; readonly by: Expression; readonly to: number }[];
  readonly accepts: readonly number[];
}

/** The rules of one format; the whole text is rule 0. */
export interface Rules {
  readonly expressions: readonly Expression[];
  /** For errors. */
  readonly names: readonly string[];
}

export const NOTHING: Expression = { kind: 'bytes', ranges: [] };
export const EMPTY: Expression = { kind: 'sequence', parts: [] };

export const isNothing = (expression: Expression): boolean =>
  expression.kind === 'bytes' && expression.ranges.length === 0;

export const bytes = (ranges: ByteRanges): Expression => ({ kind: 'bytes', ranges });

export function sequence(parts: readonly Expression[]): Expression {
  if (parts.some(isNothing)) return NOTHING;
  const flat = parts.flatMap((part) => (part.kind === 'sequence' ? part.parts : [part]));
  return flat.length === 1 ? flat[0]! : { kind: 'sequence', parts: flat };
}

export function choice(options: readonly Expression[]): Expression {
  const flat = options.flatMap((option) => (option.kind === 'choice' ? option.options : [option]));
  const possible = flat.filter((option) => !isNothing(option));
  if (possible.length === 0) return NOTHING;
  return possible.length === 1 ? possible[0]! : { kind: 'choice', options: possible };
}

export function repeat(body: Expression, min: number, max: number): Expression {
  if (max === 0 || (isNothing(body) && min === 0)) return EMPTY;
  if (isNothing(body)) return NOTHING;
  return min === 1 && max === 1 ? body : { kind: 'repeat', body, min, max };
}

export const optional = (body: Expression): Expression => repeat(body, 0, 1);
export const rule = (index: number): Expression => ({ kind: 'rule', rule: index });

/** The text itself, in UTF-8. */
export function literal(text: string): Expression {
  return sequence([...new TextEncoder().encode(text)].map((byte) => bytes([[byte, byte]])));
}
