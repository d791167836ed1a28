/** The border of the addon: whatever is passed, a call returns or throws an error with a code, and memory stays whole. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import type { Manifest } from '../../src/model/manifest.js';
import { loadAddon, type NativeEngine, type NativeEngineOptions } from '../../src/native/binding.js';

const addon = loadAddon();
const manifest = JSON.parse(readFileSync(join(BUNDLED_MODEL, 'manifest.json'), 'utf8')) as Manifest;
const OPTIONS: NativeEngineOptions = {
  architecture: manifest.architecture,
  tables: manifest.tables,
  threads: 1,
  maxBatchTokens: 16,
  maxLogitRows: 4,
  contextLength: 64,
  kv: { type: 'f16', blockTokens: 16, blocks: 4 },
  arena: {
    bitSlots: 64,
    bitSlotBytes: manifest.geometry.bitBytes,
    scaleSlots: 8,
    scaleSlotBytes: manifest.geometry.scaleBytes,
  },
  io: { path: join(BUNDLED_MODEL, 'experts.bin'), backend: 'pread', queueDepth: 4, direct: true },
};

const detached = (): Int32Array => {
  const array = new Int32Array(16);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
};
const number = fc.constantFrom(0, 1, 2, 7, 8, 31, 32, -1, 1.5, 1e9, 2 ** 31, 2 ** 32, 2 ** 53, Number.NaN, -Infinity);
const array = fc.oneof(
  fc.array(fc.integer({ min: -3, max: 70 }), { maxLength: 64 }).map((values) => Int32Array.from(values)),
  fc.array(fc.integer(), { maxLength: 64 }).map((values) => Int32Array.from(values)),
  fc.array(fc.double(), { maxLength: 16 }).map((values) => Float64Array.from(values)),
  fc.constantFrom(0, 1, 64, 4096).map((length) => new Float32Array(length)),
  fc.constantFrom(0, 17, 4096).map((length) => new Uint8Array(length)),
  fc.constantFrom(0, 64).map((length) => new Uint16Array(length)),
  fc.constant(null).map(detached),
);
const anything = fc.oneof(number, array, fc.jsonValue({ maxDepth: 1 }), fc.constantFrom(undefined, Symbol('s'), 10n));

const METHODS = [
  'loadDense',
  'ready',
  'setBatch',
  'embed',
  'attention',
  'route',
  'submitReads',
  'sharedFfn',
  'runExperts',
  'finishLayer',
  'runLayers',
  'hiddenStates',
  'logits',
  'largestLogit',
  'bestLogits',
  'takeCompletions',
  'waitCompletions',
  'cancelRead',
  'collectImportance',
  'importance',
  'copyKv',
  'loadKv',
  'ioStats',
  'memory',
] as const satisfies readonly (keyof NativeEngine)[];
const FUNCTIONS = [
  'crc32c',
  'createEngine',
  'dequantise',
  'quantiseExpert',
  'quantiseDense',
  'dequantiseExpert',
  'dequantiseDense',
] as const satisfies readonly (keyof typeof addon)[];

/** Calls with arguments no type allows. An error that is thrown has a code of ours. */
function call(target: object, name: string, args: readonly unknown[], codes: readonly string[]): void {
  try {
    (target as Record<string, (...args: readonly unknown[]) => unknown>)[name]!.call(target, ...args);
  } catch (error) {
    expect(codes, String(error)).toContain((error as { code?: string }).code);
  }
}

describe('the addon', () => {
  it('survives any arguments of its functions', () => {
    fc.assert(
      fc.property(fc.constantFrom(...FUNCTIONS), fc.array(anything, { maxLength: 8 }), (name, args) =>
        call(addon, name, args, ['INVALID_ARGUMENT']),
      ),
      { numRuns: 1500, seed: 40 },
    );
  });

  it('createEngine() refuses any option that is out of range', () => {
    const groups = ['architecture', 'tables', 'kv', 'arena', 'io'] as const;
    const place = fc.constantFrom(
      ...groups.flatMap((group) => Object.keys(OPTIONS[group]).map((key) => [group, key] as const)),
      ...Object.keys(OPTIONS).map((key) => [null, key] as const),
    );
    // Large but valid sizes would only cost memory.
    const value = anything.filter((one) => typeof one !== 'number' || !(one > 1e6 && one <= 2 ** 31));
    fc.assert(
      fc.property(place, value, ([group, key], changed) => {
        const options =
          group === null
            ? { ...OPTIONS, [key]: changed }
            : { ...OPTIONS, [group]: { ...OPTIONS[group], [key]: changed } };
        try {
          addon.createEngine(options as NativeEngineOptions).close();
        } catch (error) {
          expect(['INVALID_ARGUMENT', 'IO_ERROR'], String(error)).toContain((error as { code?: string }).code);
        }
      }),
      { numRuns: 400, seed: 41 },
    );
  });

  it('an engine survives any calls in any order, and says ENGINE_CLOSED after close()', () => {
    const calls = fc.array(fc.tuple(fc.constantFrom(...METHODS), fc.array(anything, { maxLength: 5 })), {
      maxLength: 40,
    });
    fc.assert(
      fc.property(calls, (list) => {
        const engine = addon.createEngine(OPTIONS);
        // A batch, so that calls come past the first check.
        engine.setBatch(Int32Array.of(1, 2), Int32Array.of(0, 1), Int32Array.of(0, 0), Int32Array.of(0, 1, 2, 3), 4);
        for (const [name, args] of list) call(engine, name, args, ['INVALID_ARGUMENT', 'MODEL_INVALID', 'IO_ERROR']);
        engine.close();
        for (const name of METHODS) expect(() => call(engine, name, [], [])).toThrow(/ENGINE_CLOSED|it is closed/);
      }),
      { numRuns: 40, seed: 42 },
    );
  });

  it('lets a thread be ended in the middle of a call', () => {
    const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));
    const script = at('../helpers/terminate-mid-call.mjs');
    const built = ['cmake/Release', 'Release'].map((folder) => at(`../../build/${folder}/moestro.node`));
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, [script, built.find(existsSync)!]);
    expect([String(stderr), signal, status, String(stdout)]).toEqual(['', null, 0, 'all ended\n']);
  });
});
