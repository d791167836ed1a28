/** Keeps the map of docs/architecture.md true: reads the imports of src/ and the includes of native/. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Modules everybody may import: they know nothing of the others. */
const EVERYBODY_TS = ['errors', 'config', 'settings', 'bytes', 'machine', 'metrics', 'merge', 'version', 'worker-file'];

/** Each room of src/ and the rooms it may import from. A test below sees to it that no arrow is there in vain. */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  cli: ['http', 'generate', 'open-model', 'model', 'eval', 'engine', 'text', 'replay', 'load'],
  index: ['generate', 'open-model'],
  http: ['generate'],
  'open-model': ['generate', 'text', 'engine', 'model'],
  generate: ['answer', 'constrain', 'prompts', 'text'],
  prompts: ['constrain'],
  answer: ['constrain', 'text'],
  constrain: [],
  eval: ['text', 'engine', 'model'],
  engine: ['constrain', 'experts', 'model', 'native'],
  replay: ['experts'],
  load: [],
  experts: [],
  text: [],
  model: ['native'],
  native: [],
  ...Object.fromEntries(EVERYBODY_TS.map((name) => [name, []])),
};

/** Single imports beyond the map. */
const EXCEPTIONS: readonly string[] = [
  // The reference path shares nothing with the engine, but formats of weights it reads as conversion does.
  'eval/reference-weights.ts -> native/binding.ts',
];

/** Plain data that crosses borders, types and constants without code: free to import. */
const CONTRACTS = [
  'answer/types.ts',
  'constrain/program.ts',
  'engine/types.ts',
  'engine/engine-metrics.ts',
  'text/types.ts',
  'model/manifest.ts',
];
/** The addon's surface: its types are free, what it loads is not. */
const BINDING = 'native/binding.ts';

const NATIVE_ROOMS: Readonly<Record<string, readonly string[]>> = {
  addon: ['layers', 'io', 'quantise'],
  layers: ['kernels', 'memory'],
  quantise: ['kernels'],
  io: ['memory'],
  memory: [],
  kernels: [],
  base: [],
};

const NATIVE_EXCEPTIONS: readonly string[] = [
  // Tests run the kernels' checks through the addon.
  'addon/addon.cc -> native/kernels/check.h',
  // The benchmark of the kernels is a program of its own: it runs whole experts on memory like the engine's.
  'kernels/bench/dense.cc -> native/memory/memory.h',
  'kernels/bench/experts.cc -> native/layers/expert_batch.h',
  'kernels/bench/experts.cc -> native/memory/memory.h',
  'kernels/bench/machine.cc -> native/memory/memory.h',
];

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
const nameOf = ({ from, to }: { readonly from: string; readonly to: string }): string => `${from} -> ${to}`;
const isFree = ({ from, to, isTypeOnly }: Edge): boolean =>
  roomOf(from) === roomOf(to) ||
  EVERYBODY_TS.includes(roomOf(to)) ||
  CONTRACTS.includes(to) ||
  (isTypeOnly && to === BINDING);
const isAllowed = (edge: Edge): boolean =>
  isFree(edge) || (ROOMS[roomOf(edge.from)]?.includes(roomOf(edge.to)) ?? false) || EXCEPTIONS.includes(nameOf(edge));

/** Arrows of a map, and exceptions to it, that no edge follows. */
const inVain = (
  rooms: Readonly<Record<string, readonly string[]>>,
  exceptions: readonly string[],
  edges: readonly { readonly from: string; readonly to: string; readonly room: string }[],
): string[] => [
  ...Object.entries(rooms).flatMap(([from, allowed]) =>
    allowed
      .filter((to) => !edges.some((edge) => roomOf(edge.from) === from && edge.room === to))
      .map((to) => `${from} -> ${to}`),
  ),
  ...exceptions.filter((exception) => !edges.some((edge) => nameOf(edge) === exception)),
];

describe('src/', () => {
  it('has only rooms that are on the map', () => {
    expect(SOURCES.map(roomOf).filter((room) => !(room in ROOMS))).toEqual([]);
    expect(EDGES.length).toBeGreaterThan(50);
  });

  it('imports along the arrows of the map only', () => {
    expect(EDGES.filter((edge) => !isAllowed(edge)).map(nameOf)).toEqual([]);
  });

  it('has no arrow that nothing follows', () => {
    const edges = EDGES.filter((edge) => !isFree(edge)).map((edge) => ({ ...edge, room: roomOf(edge.to) }));
    expect(inVain(ROOMS, EXCEPTIONS, edges)).toEqual([]);
  });

  it('imports only files that exist', () => {
    expect(EDGES.filter(({ to }) => !SOURCES.includes(to)).map(nameOf)).toEqual([]);
  });

  it('keeps http away from what lies behind generate.ts', () => {
    const behind = ['engine', 'text', 'native', 'model', 'experts'];
    const edges = EDGES.filter(({ from, to }) => roomOf(from) === 'http' && behind.includes(roomOf(to)));
    expect(edges.map(nameOf)).toEqual([]);
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
    return [...source.matchAll(/^#include "([^"]+)"/gm)].map((match) => {
      const to = match[1]!;
      return { from: file, to, room: to.split('/')[1] ?? '' };
    });
  });

  it('includes along the arrows of the map only, by paths from the root of the project', () => {
    const wrong = edges.filter((edge) => {
      if (!edge.to.startsWith('native/')) return true;
      const allowed = [roomOf(edge.from), 'base', ...(NATIVE_ROOMS[roomOf(edge.from)] ?? [])];
      return !allowed.includes(edge.room) && !NATIVE_EXCEPTIONS.includes(nameOf(edge));
    });
    expect(edges.length).toBeGreaterThan(20);
    expect(wrong.map(nameOf)).toEqual([]);
  });

  it('has no arrow that nothing follows', () => {
    expect(inVain(NATIVE_ROOMS, NATIVE_EXCEPTIONS, edges)).toEqual([]);
  });

  it('keeps layers away from files and disks', () => {
    expect(edges.filter(({ from, room }) => roomOf(from) === 'layers' && room === 'io')).toEqual([]);
  });
});
