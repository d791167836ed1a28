/** Keeps the map of docs/architecture.md true: reads the imports of src/ and the includes of native/. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Modules everybody may import: they know nothing of the others. */
const EVERYBODY_TS = ['errors', 'config', 'settings', 'bytes', 'metrics', 'merge', 'version', 'worker-file'];

/** Each room of src/ and the rooms it may import from. */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  cli: ['http', 'generate', 'open-model', 'replay', 'model', 'eval', 'experts', 'engine', 'text', 'native'],
  index: ['generate', 'open-model'],
  http: ['generate'],
  'open-model': ['generate', 'text', 'engine', 'model'],
  generate: ['text', 'engine', 'model'],
  eval: ['generate', 'open-model', 'text', 'engine', 'model', 'experts', 'native'],
  engine: ['experts', 'model', 'native'],
  experts: ['model'],
  replay: ['experts', 'model'],
  text: [],
  model: ['native'],
  native: [],
  ...Object.fromEntries(EVERYBODY_TS.map((name) => [name, []])),
};

/** Plain data that crosses borders, types and constants without code: free to import. */
const CONTRACTS = ['engine/types.ts', 'text/types.ts', 'model/manifest.ts'];
/** The addon's surface: its types are free, what it loads is not. */
const BINDING = 'native/binding.ts';

const NATIVE_ROOMS: Readonly<Record<string, readonly string[]>> = {
  addon: ['layers', 'io', 'quantise', 'kernels', 'memory'],
  layers: ['kernels', 'memory', 'io'],
  quantise: ['kernels'],
  io: ['memory'],
  memory: [],
  kernels: [],
  base: [],
};

interface Edge {
  readonly from: string;
  readonly to: string;
  readonly isTypeOnly: boolean;
}

function filesUnder(folder: string, endings: readonly string[]): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => endings.some((ending) => name.endsWith(ending)))
    .map((name) => name.replaceAll('\\', '/'));
}

function importsOf(file: string): Edge[] {
  const source = readFileSync(join(ROOT, 'src', file), 'utf8');
  const pattern =
    /^\s*(import|export)\s+(type\s+)?[^;]*?from\s+'(\.[^']+)'|import\('(\.[^']+)'\)|^import\s+'(\.[^']+)'/gm;
  return [...source.matchAll(pattern)].map((match) => {
    const target = match[3] ?? match[4] ?? match[5] ?? '';
    const to = relative(join(ROOT, 'src'), join(ROOT, 'src', dirname(file), target)).replace(/\.js$/, '.ts');
    // `import { type A, type B }` imports no value either.
    const names = /\{([^}]*)\}/
      .exec(match[0])?.[1]
      ?.split(',')
      .map((name) => name.trim())
      .filter((name) => name !== '');
    const isTypeOnly = match[2] !== undefined || (names?.every((name) => name.startsWith('type ')) ?? false);
    return { from: file, to: normalize(to), isTypeOnly };
  });
}

const roomOf = (file: string): string => file.split('/')[0]!.replace(/\.ts$/, '');

const SOURCES = filesUnder('src', ['.ts']);
const EDGES = SOURCES.flatMap(importsOf);
const isAllowed = ({ from, to, isTypeOnly }: Edge): boolean =>
  roomOf(from) === roomOf(to) ||
  EVERYBODY_TS.includes(roomOf(to)) ||
  CONTRACTS.includes(to) ||
  (isTypeOnly && to === BINDING) ||
  (ROOMS[roomOf(from)]?.includes(roomOf(to)) ?? false);

describe('src/', () => {
  it('has only rooms that are on the map', () => {
    expect(SOURCES.map(roomOf).filter((room) => !(room in ROOMS))).toEqual([]);
    expect(EDGES.length).toBeGreaterThan(50);
  });

  it('imports along the arrows of the map only', () => {
    expect(EDGES.filter((edge) => !isAllowed(edge)).map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
  });

  it('imports only files that exist', () => {
    expect(EDGES.filter(({ to }) => !SOURCES.includes(to)).map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
  });

  it('keeps http away from what lies behind generate.ts', () => {
    const behind = ['engine', 'text', 'native', 'model', 'experts'];
    const edges = EDGES.filter(({ from, to }) => roomOf(from) === 'http' && behind.includes(roomOf(to)));
    expect(edges.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
  });

  it('re-exports from index.ts only and has no default exports', () => {
    const reExports = SOURCES.filter((file) =>
      /^export\s+(type\s+)?(\*|\{[^}]*\})\s+from/m.test(readFileSync(join(ROOT, 'src', file), 'utf8')),
    );
    expect(reExports.filter((file) => file !== 'index.ts')).toEqual([]);
    const defaults = SOURCES.filter((file) => /^export default/m.test(readFileSync(join(ROOT, 'src', file), 'utf8')));
    expect(defaults).toEqual([]);
  });

  it('catches a forbidden import', () => {
    expect(isAllowed({ from: 'http/server.ts', to: 'engine/client.ts', isTypeOnly: false })).toBe(false);
    expect(isAllowed({ from: 'experts/plan.ts', to: 'native/binding.ts', isTypeOnly: false })).toBe(false);
    expect(isAllowed({ from: 'http/server.ts', to: 'generate.ts', isTypeOnly: false })).toBe(true);
  });
});

describe('native/', () => {
  const edges = filesUnder('native', ['.h', '.cc']).flatMap((file) => {
    const source = readFileSync(join(ROOT, 'native', file), 'utf8');
    return [...source.matchAll(/^#include "([^"]+)"/gm)].map((match) => ({ from: file, to: match[1]! }));
  });

  it('includes along the arrows of the map only, by paths from the root of the project', () => {
    const wrong = edges.filter(({ from, to }) => {
      const [top, room] = to.split('/');
      if (top !== 'native' || room === undefined) return true;
      const own = roomOf(from);
      return room !== own && room !== 'base' && !(NATIVE_ROOMS[own]?.includes(room) ?? false);
    });
    expect(edges.length).toBeGreaterThan(20);
    expect(wrong.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
  });
});
