/** What a request may ask of the form of an answer, and its compilation; the same format is compiled once. */
import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { buildProgram } from './build-program.js';
import { regexExpression } from './code-point-automaton.js';
import { utf8 } from './code-points.js';
import { compileSchema, SchemaCompiler } from './compile-schema.js';
import type { Rules } from './expression.js';
import { addForcedTexts, type ForcedTokenizer } from './forced.js';
import { compileGrammar } from './gbnf.js';
import { literals } from './literals.js';
import type { FormatProgram } from './program.js';
import { refuseFormat } from './refuse.js';
import { parseRegex } from './regex.js';
import { DEPTH_MAX, depthOf } from './schema-document.js';
import { type ToolGrammar, toolRules } from './tool-rules.js';

/** What the text of an answer must be, whole. */
export type FormatSource =
  | { readonly kind: 'json_object' }
  /** JSON Schema, the subset of docs/constrained.md. */
  | { readonly kind: 'json_schema'; readonly schema: unknown }
  /** ECMAScript; the whole text has to match. */
  | { readonly kind: 'regex'; readonly pattern: string }
  /** One of these texts. */
  | { readonly kind: 'choice'; readonly texts: readonly string[] }
  /** GBNF as llama.cpp writes it, from the rule "root". */
  | { readonly kind: 'grammar'; readonly source: string };

/** Programs kept for formats that come again, by their size in bytes. */
const PROGRAM_BYTES_MAX = 8 << 20;

/** Compiles the formats of one model, each once. */
export class FormatCompiler {
  readonly #programs = new LRUCache<string, FormatProgram>({
    maxSize: PROGRAM_BYTES_MAX,
    sizeCalculation: programBytes,
  });
  readonly #tokenizer: ForcedTokenizer;

  /** @param tokenizer splits the texts that a format forces. */
  constructor(tokenizer: ForcedTokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** As compileFormat, with the texts that are the only way on. */
  compile(format: FormatSource | null, tools: ToolGrammar | null): FormatProgram {
    const key = keyOf(format, tools);
    const known = this.#programs.get(key);
    if (known !== undefined) return known;
    const program = addForcedTexts(compileFormat(format, tools), this.#tokenizer);
    this.#programs.set(key, program);
    return program;
  }
}

/**
 * @param tools calls the answer may hold, or has to; null for none. The format is then that of an answer without calls.
 * @throws {MoestroError} UNSUPPORTED_FORMAT.
 */
export function compileFormat(format: FormatSource | null, tools: ToolGrammar | null): FormatProgram {
  const key = keyOf(format, tools);
  return buildProgram(tools === null ? formatRules(format) : toolRules(tools, format), key);
}

function keyOf(format: FormatSource | null, tools: ToolGrammar | null): string {
  // Before it is written out by a function that calls itself.
  if (depthOf([format, tools]) > DEPTH_MAX)
    throw refuseFormat('#', `JSON nested deeper than ${DEPTH_MAX}`, 'a flatter schema');
  return createHash('sha256')
    .update(JSON.stringify([format, tools]))
    .digest('base64url');
}

export function formatRules(format: FormatSource | null): Rules {
  switch (format?.kind) {
    case undefined:
      throw refuseFormat('its root', 'nothing', 'a format or tools');
    case 'json_object': {
      const compiler = new SchemaCompiler({});
      return compiler.rules(compiler.anyObject());
    }
    case 'json_schema':
      return compileSchema(format.schema);
    case 'regex':
      return {
        expressions: [regexExpression(parseRegex(format.pattern, 'the regex', true), utf8)],
        names: ['the regex'],
      };
    case 'choice':
      return { expressions: [literals(format.texts)], names: ['the texts'] };
    case 'grammar':
      return compileGrammar(format.source);
    default:
      return format satisfies never;
  }
}

function programBytes({ kinds, a, b, forks, loopOf, starts, sets, forced }: FormatProgram): number {
  const arrays = [kinds, a, b, forks, loopOf, starts, sets];
  return 1024 + arrays.reduce((sum, { byteLength }) => sum + byteLength, 0) + forced.length * 200;
}
