/** Text of a configuration file to its entries, each with its place. YAML, of which JSON is a part, or TOML. */
import { MoestroError } from '../errors.js';

export interface RawEntry {
  readonly key: string;
  /** As the format's library gives it: text, number, boolean, null, Date, array or object. */
  readonly value: unknown;
  readonly line: number;
  readonly column: number;
}

/** @throws {MoestroError} INVALID_CONFIG with the place of a mistake in the syntax, as "name:line:column". */
export type ParseFile = (text: string, name: string) => Promise<readonly RawEntry[]>;

const refuse = (where: string, found: string, cause?: unknown): never => {
  throw new MoestroError('INVALID_CONFIG', `Cannot read ${where}: ${found}`, {}, cause);
};

const NEEDED = 'needed lines of "name: value"';

/** One document, one mapping; what a line means twice or not at all is refused. */
export const parseYaml: ParseFile = async (text, name) => {
  // The libraries are loaded where a file is: most processes have none, and the memory budget covers them.
  const { LineCounter, parseDocument, isMap, isScalar } = await import('yaml');
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const whereOf = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${name}:${line}:${col}`;
  };
  const problem = document.errors[0] ?? document.warnings[0];
  if (problem !== undefined) {
    const found = problem.code === 'MULTIPLE_DOCS' ? 'found a second document, needed one' : problem.message;
    const key =
      problem.code === 'DUPLICATE_KEY' ? /^\s*["']?([\w-]+)/.exec(text.slice(problem.pos[0]))?.[1] : undefined;
    refuse(whereOf(problem.pos[0]), key === undefined ? found : `found "${key}" a second time, needed it once`);
  }
  const { contents } = document;
  if (contents === null || (isScalar(contents) && contents.value === null)) return [];
  if (!isMap(contents)) return refuse(whereOf(contents.range?.[0] ?? 0), `found no names of settings, ${NEEDED}`);
  return contents.items.map(({ key, value }) => {
    const start = (key as { readonly range?: readonly number[] } | null)?.range?.[0] ?? 0;
    if (!isScalar(key) || typeof key.value !== 'string') {
      return refuse(whereOf(start), `found a name that is no text, ${NEEDED}`);
    }
    const { line, col } = lines.linePos(start);
    const at = { key: key.value, line, column: col };
    if (value === null) return { ...at, value: null };
    try {
      return { ...at, value: (value as { toJS(of: typeof document): unknown }).toJS(document) };
    } catch (cause) {
      return refuse(whereOf(start), `"${key.value}": ${(cause as Error).message}`, cause);
    }
  });
};

export const parseToml: ParseFile = async (text, name) => {
  const { parse, TomlError } = await import('smol-toml');
  let table: Readonly<Record<string, unknown>>;
  try {
    table = parse(text);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const found = cause.message.replace(/^Invalid TOML document: /, '').split('\n')[0]!;
    const key = /redefine/.test(found) ? tomlName(text.split('\n')[cause.line - 1] ?? '') : undefined;
    return refuse(
      `${name}:${cause.line}:${cause.column}`,
      key === undefined ? found : `found "${key}" a second time, needed it once`,
      cause,
    );
  }
  const lines = text.split('\n');
  return Object.entries(table).map(([key, value]) => ({ key, value, line: tomlLine(lines, key, parse), column: 1 }));
};

const tomlName = (line: string): string | undefined => /^\s*\[*\s*["']?([\w-]+)/.exec(line)?.[1];

/**
 * The line that gives `key` its value. A line that looks like it may stand inside of a text of several lines: it is a
 * statement when all before it is a document of its own.
 */
function tomlLine(lines: readonly string[], key: string, parse: (text: string) => unknown): number {
  const at = lines.findIndex((line, index) => {
    if (tomlName(line) !== key) return false;
    try {
      parse(lines.slice(0, index).join('\n'));
      return true;
    } catch {
      return false; // the text before it ends inside of a value
    }
  });
  return Math.max(0, at) + 1;
}
