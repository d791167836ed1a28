import { availableParallelism, totalmem } from 'node:os';
import { describe, expect, it } from 'vitest';
import { formatBytes, parseBytes } from '../src/bytes.js';
import { defaultPrefixHome, engineConfig, samplingConfig, serverConfig } from '../src/config.js';
import type { MoestroError } from '../src/errors.js';
import { memoryLimitBytes } from '../src/machine.js';
import { ALL_SETTINGS } from '../src/settings/all-settings.js';
import { ENGINE_SETTINGS, isasOf } from '../src/settings/engine-settings.js';
import type { RawSettings } from '../src/settings/find.js';
import { SAMPLING_SETTINGS } from '../src/settings/sampling-settings.js';
import { SERVER_SETTINGS } from '../src/settings/server-settings.js';
import { fileName } from '../src/settings/setting.js';

const FOREIGN_ISA = process.arch === 'arm64' ? 'avx2' : 'neon';

/** The error that `act` throws. */
function thrown(act: () => unknown): MoestroError {
  try {
    act();
  } catch (error) {
    return error as MoestroError;
  }
  throw new Error('nothing was thrown');
}

describe('parseBytes()', () => {
  it.each([
    ['8589934592', 8589934592],
    ['1B', 1],
    ['8GiB', 8 * 2 ** 30],
    ['8gib', 8 * 2 ** 30],
    ['1.5GB', 1.5e9],
    [' 512 MiB ', 512 * 2 ** 20],
    ['64kB', 64_000],
    ['.5KiB', 512],
    ['2TB', 2e12],
    ['60%', 6000],
    ['0.5%', 50],
    ['100%', 10_000],
  ])('reads %j', (text, bytes) => {
    expect(parseBytes(text, '--budget', 10_000)).toBe(bytes);
  });

  it.each(['', 'GiB', '8G', '8Gb/s', '-1GiB', '1e9', '0', '0%', '101%', '8 GiB 2', 'Infinity', '99999999TiB', '0x10'])(
    'refuses %j, naming the value and the accepted forms',
    (text) => {
      const error = thrown(() => parseBytes(text, '--budget', 10_000));
      expect(error.code).toBe('INVALID_CONFIG');
      expect(error.message).toContain(`--budget "${text}"`);
      expect(error.message).toContain('"8GiB"');
      expect(error.message).toContain('"60%"');
    },
  );
});

describe('formatBytes()', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.00 KiB'],
    [3.2 * 2 ** 30, '3.20 GiB'],
    [45.6 * 2 ** 20, '45.6 MiB'],
    [456 * 2 ** 20, '456 MiB'],
  ])('writes %d', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});

describe('engineConfig()', () => {
  it('has defaults for everything', () => {
    expect(engineConfig('m.moe', {}, {})).toEqual({
      modelPath: 'm.moe',
      budgetBytes: null,
      threads: availableParallelism(),
      isa: null,
      level: null,
      mode: 'exact',
      meanBits: null,
      targetTps: null,
      contextLength: null,
      kvType: 'f16',
      prefix: { memoryBytes: null, directory: null, diskBytes: 8 * 2 ** 30, dailyBytes: 16 * 2 ** 30 },
      chunkTokens: 512,
      maxSequences: null,
      maxQueued: 64,
      gear: 'auto',
      tokenGapMs: 2000,
      io: { backend: 'automatic', queueDepth: 8, direct: true },
      prefetch: 'off',
      maxResidentExperts: null,
      routingTrace: null,
      recordTrace: null,
    });
  });

  it('keeps prefixes where it is told, and in the home it is given where it is told nothing', () => {
    const directory = (raw: RawSettings, home: string | null): string | null | undefined =>
      engineConfig('m.moe', raw, {}, null, home).prefix?.directory;
    expect(engineConfig('m.moe', { prefixCache: 'off', prefixDir: '/x' }, {}).prefix).toBeNull();
    expect(directory({}, '/home')).toBe('/home');
    expect(directory({ prefixDir: 'off' }, '/home')).toBeNull();
    expect(directory({ prefixDir: '/x' }, '/home')).toBe('/x');
    expect(defaultPrefixHome({ XDG_CACHE_HOME: '/c', HOME: '/h' })).toBe('/c/moestro/prefixes');
    expect(defaultPrefixHome({ XDG_CACHE_HOME: '', HOME: '/h' })).toBe('/h/.cache/moestro/prefixes');
    for (const env of [{}, { HOME: 'h' }, { XDG_CACHE_HOME: 'c' }]) expect(defaultPrefixHome(env)).toBeNull();
  });

  it('is frozen', () => {
    const config = engineConfig('m.moe', {}, {});
    expect(Object.isFrozen(config) && Object.isFrozen(config.io)).toBe(true);
  });

  it('lets a flag beat its variable, and a variable the default', () => {
    const env = { MOESTRO_BUDGET: '1GiB', MOESTRO_MODE: 'routed', MOESTRO_THREADS: '' };
    const config = engineConfig('m.moe', { budget: '2GiB' }, env);
    expect(config).toMatchObject({ budgetBytes: 2 * 2 ** 30, mode: 'routed', threads: availableParallelism() });
  });

  it('takes numbers and booleans from callers of the library', () => {
    const raw = { budget: 123456789, level: 3, directIo: false, threads: 2, context: 256 };
    expect(engineConfig('m.moe', raw, {})).toMatchObject({
      budgetBytes: 123456789,
      level: 3,
      threads: 2,
      contextLength: 256,
      io: { direct: false },
    });
  });

  it('takes a share of the machine', () => {
    const { budgetBytes } = engineConfig('m.moe', { budget: '50%' }, {});
    expect(budgetBytes).toBe(Math.floor(memoryLimitBytes() / 2));
    expect(memoryLimitBytes()).toBeLessThanOrEqual(totalmem());
  });

  it.each([
    [{ budget: '8G' }, {}, '--budget "8G"', 'or "auto"'],
    [{}, { MOESTRO_BUDGET: 'lots' }, 'MOESTRO_BUDGET "lots"', '"8GiB"'],
    [{ mode: 'fast' }, {}, '--mode "fast"', 'one of exact, routed'],
    [{ level: 5 }, {}, '--level "5"', 'one of 2, 3, 4, 8, or "auto"'],
    [{ threads: 0 }, {}, '--threads "0"', 'a whole number from 1 to 256'],
    [{}, { MOESTRO_THREADS: '1.5' }, 'MOESTRO_THREADS "1.5"', 'a whole number'],
    [{ chunk: '' }, {}, '--chunk ""', 'a whole number'],
    [{ isa: 'sse9' }, {}, '--isa "sse9"', `one of ${isasOf(process.arch).join(', ')}, or "auto"`],
    // Kernels of another architecture are not offered, nor taken.
    [{ isa: FOREIGN_ISA }, {}, `--isa "${FOREIGN_ISA}"`, `one of ${isasOf(process.arch).join(', ')}, or "auto"`],
    [{}, { MOESTRO_ISA: FOREIGN_ISA }, `MOESTRO_ISA "${FOREIGN_ISA}"`, 'or "auto"'],
    [{ io: 'fake' }, {}, '--io "fake"', 'one of automatic, io_uring, pread'],
    [{ directIo: 'maybe' }, {}, '--direct-io "maybe"', '"on" or "off"'],
    [{ kv: 'f32' }, {}, '--kv "f32"', 'one of f16, int8'],
    [{ context: '3' }, {}, '--context "3"', '16'],
    [{ bugdet: '8GiB' }, {}, '"bugdet"', 'budget'],
  ])('refuses %j with %j, naming where it stands, what was found and what was needed', (raw, env, where, needed) => {
    const error = thrown(() => engineConfig('m.moe', raw, env));
    expect(error.code).toBe('INVALID_CONFIG');
    expect(error.message).toContain(where);
    expect(error.message).toContain(needed);
  });
});

describe('isasOf()', () => {
  it('names the instruction sets of each architecture, scalar always', () => {
    expect(isasOf('x64')).toEqual(['scalar', 'avx2', 'avx512', 'avx512vbmi', 'amx']);
    expect(isasOf('arm64')).toEqual(['scalar', 'neon']);
    expect(isasOf('riscv64')).toEqual(['scalar']);
  });
});

describe('serverConfig()', () => {
  it('listens on loopback, lets all keys in, and limits bodies by default', () => {
    expect(serverConfig({}, {})).toEqual({
      host: '127.0.0.1',
      port: 8080,
      moreModels: [],
      apiKeys: [],
      keyLimits: { requestsPerMinute: null, atOnce: null, byKey: new Map() },
      corsOrigins: [],
      allowedHosts: [],
      bodyLimitBytes: 32 * 2 ** 20,
      pingSeconds: 10,
      logLevel: 'warn',
    });
  });

  it('reads lists', () => {
    const env = { MOESTRO_API_KEY: 'a, b,,c ', MOESTRO_CORS_ORIGIN: 'http://localhost:3000/, https://x.example' };
    expect(serverConfig({}, env)).toMatchObject({
      apiKeys: ['a', 'b', 'c'],
      corsOrigins: ['http://localhost:3000', 'https://x.example'],
    });
    expect(serverConfig({ corsOrigins: '*' }, {}).corsOrigins).toEqual(['*']);
  });

  it.each([
    [{ port: '65536' }, '--port "65536"'],
    [{ port: 'http' }, '--port "http"'],
    [{ pingSeconds: '0' }, '--ping-seconds "0"'],
    [{ corsOrigins: 'localhost' }, '--cors-origin "localhost"'],
    [{ corsOrigins: 'http://a.example/path' }, '--cors-origin "http://a.example/path"'],
    [{ bodyLimit: '1M' }, '--body-limit "1M"'],
    [{ logLevel: 'loud' }, '--log-level "loud"'],
  ])('refuses %j', (raw, where) => {
    const error = thrown(() => serverConfig(raw, {}));
    expect([error.code, error.message.includes(where)]).toEqual(['INVALID_CONFIG', true]);
  });
});

describe('samplingConfig()', () => {
  it('reads how answers are drawn', () => {
    const config = samplingConfig({ temperature: '0', seed: 7, maxTokens: 32 }, { MOESTRO_TOP_P: '0.5' });
    expect(config).toMatchObject({ maxTokens: 32, sampling: { temperature: 0, seed: 7, topP: 0.5 } });
    expect(samplingConfig({}, {})).toMatchObject({ maxTokens: null, sampling: { temperature: 0.7, seed: null } });
  });

  it.each([{ temperature: 'warm' }, { temperature: '3' }, { topP: '' }, { seed: '-1' }, { maxTokens: '0' }])(
    'refuses %j',
    (raw) => {
      expect(thrown(() => samplingConfig(raw, {})).code).toBe('INVALID_CONFIG');
    },
  );
});

describe('the tables of settings', () => {
  it('name each key, flag and variable once', () => {
    const all = [...ENGINE_SETTINGS, ...SERVER_SETTINGS, ...SAMPLING_SETTINGS];
    expect(new Set(ALL_SETTINGS.map(fileName)).size).toBe(ALL_SETTINGS.length);
    for (const of of ['key', 'flag', 'env'] as const) expect(new Set(all.map((row) => row[of])).size).toBe(all.length);
    for (const { env, flag, fallback, parse } of all) {
      expect(env).toMatch(/^MOESTRO_[A-Z_]+$/);
      expect(flag).toMatch(/^--[a-z-]+ <[^>]+>$/);
      expect(() => parse(fallback, flag)).not.toThrow();
    }
  });
});
