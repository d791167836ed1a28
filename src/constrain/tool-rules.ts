/**
 * Answers that hold calls of tools, in the form a model was taught: text without the mark that begins a call, then calls
 * whose arguments follow the tool's schema.
 *
 *     hermes   Let me look. <tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>
 */
import { SchemaCompiler } from './compile-schema.js';
import {
  bytes,
  choice,
  EMPTY,
  type Expression,
  type Graph,
  literal,
  repeat,
  type Rules,
  rule,
  sequence,
} from './expression.js';
import type { FormatSource } from './format.js';
import { formatRules } from './format.js';
import { MoestroError } from '../errors.js';
import { refuseFormat } from './refuse.js';

/** What stands around the parts of a call; the arguments are JSON. */
export interface CallMarks {
  /** Begins a call; text of the answer never holds it. */
  readonly begin: string;
  /** Between begin and the name, between name and arguments, and after them. */
  readonly beforeName: string;
  readonly afterName: string;
  readonly end: string;
  /** Between two calls. */
  readonly between: string;
}

/** As Hermes and Qwen models write calls. */
export const HERMES: CallMarks = {
  begin: '<tool_call>',
  beforeName: '\n{"name": "',
  afterName: '", "arguments": ',
  end: '}\n</tool_call>',
  between: '\n',
};

export interface ToolGrammar {
  readonly marks: CallMarks;
  readonly tools: readonly { readonly name: string; readonly parameters: unknown }[];
  /** Whether the answer may be text without a call. */
  readonly isOptional: boolean;
  /** Calls of one answer at most; up to {@link CALLS_MAX}. */
  readonly callsMax: number;
}

/** Calls of one answer at most, where nothing is said. */
export const CALLS_MAX = 16;

/**
 * @param format of an answer without calls; null for any text.
 * @throws {MoestroError} UNSUPPORTED_FORMAT naming the tool.
 */
export function toolRules({ marks, tools, isOptional, callsMax }: ToolGrammar, format: FormatSource | null): Rules {
  const compiler = new SchemaCompiler({ isOneOfLoose: true });
  const calls = tools.map(({ name, parameters }) => {
    const value = addTool(compiler, name, parameters);
    return sequence([literal(JSON.stringify(name).slice(1, -1) + marks.afterName), value]);
  });
  if (calls.length === 0) throw refuseFormat('tools', 'none', 'at least one');
  const call = compiler.shared('a call', () =>
    sequence([literal(marks.beforeName), choice(calls), literal(marks.end)]),
  );
  const more = sequence([literal(marks.between + marks.begin), call]);
  const all = sequence([call, repeat(more, 0, Math.min(callsMax, CALLS_MAX) - 1)]);
  const begun = sequence([literal(marks.begin), all]);
  if (!isOptional) return compiler.rules(begun);
  if (format === null) return compiler.rules(textThen(marks.begin, all));
  return joined(compiler.rules(begun), formatRules(format));
}

/** Errors name the tool beside the place in its schema. */
function addTool(compiler: SchemaCompiler, tool: string, parameters: unknown): Expression {
  try {
    return compiler.add(parameters ?? {}, true);
  } catch (error) {
    if (!(error instanceof MoestroError)) throw error;
    throw new MoestroError(error.code, `${error.message}, in tool "${tool}"`, { ...error.details, tool }, error);
  }
}

/** Any text without `mark`; the mark may follow it, and then `rest` does. */
function textThen(mark: string, rest: Expression): Expression {
  const wanted = [...new TextEncoder().encode(mark)];
  const states = wanted.length;
  const edges: Graph['edges'][number][] = [];
  for (let state = 0; state < states; ++state) {
    const targets = new Map<number, number[]>();
    for (let byte = 0; byte < 256; ++byte) {
      // 0xF5 and above, C0 and C1 are in no UTF-8; the rest is what the tokens make of it.
      if (byte === 0xc0 || byte === 0xc1 || byte >= 0xf5) continue;
      const to = matchedAfter(wanted, state, byte);
      targets.set(to, [...(targets.get(to) ?? []), byte]);
    }
    for (const [to, list] of targets) edges.push({ from: state, by: bytes(rangesOf(list)), to });
  }
  edges.push({ from: states, by: rest, to: states + 1 });
  const accepts = [...wanted.keys(), states + 1];
  return { kind: 'graph', graph: { states: states + 2, edges, accepts } };
}

/** How much of `wanted` ends a text that ended with `state` bytes of it, after one byte more (Knuth, Morris and Pratt). */
function matchedAfter(wanted: readonly number[], state: number, byte: number): number {
  const seen = [...wanted.slice(0, state), byte];
  for (let length = seen.length; length > 0; --length) {
    const tail = seen.slice(seen.length - length);
    if (tail.every((one, i) => one === wanted[i])) return length;
  }
  return 0;
}

function rangesOf(ascending: readonly number[]): (readonly [number, number])[] {
  const ranges: [number, number][] = [];
  for (const byte of ascending) {
    const last = ranges.at(-1);
    if (last !== undefined && last[1] === byte - 1) last[1] = byte;
    else ranges.push([byte, byte]);
  }
  return ranges;
}

/** Texts of either format. */
function joined(a: Rules, b: Rules): Rules {
  const first = a.expressions.length + 1;
  return {
    expressions: [
      choice([rule(1), rule(first)]),
      ...a.expressions.map((expression) => shifted(expression, 1)),
      ...b.expressions.map((expression) => shifted(expression, first)),
    ],
    names: ['the whole text', ...a.names, ...b.names],
  };
}

function shifted(expression: Expression, by: number): Expression {
  switch (expression.kind) {
    case 'bytes':
      return expression;
    case 'sequence':
      return expression.parts.length === 0
        ? EMPTY
        : { kind: 'sequence', parts: expression.parts.map((part) => shifted(part, by)) };
    case 'choice':
      return { kind: 'choice', options: expression.options.map((option) => shifted(option, by)) };
    case 'repeat':
      return { ...expression, body: shifted(expression.body, by) };
    case 'rule':
      return rule(expression.rule + by);
    case 'graph': {
      const edges = expression.graph.edges.map((edge) => ({ ...edge, by: shifted(edge.by, by) }));
      return { kind: 'graph', graph: { ...expression.graph, edges } };
    }
    default:
      return expression satisfies never;
  }
}
