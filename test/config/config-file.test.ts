/** Configuration files as settings: places, precedence, lists and paths. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeSettings } from '../../src/cli/config.js';
import { engineConfig, samplingConfig, serverConfig } from '../../src/config.js';
import { closest, editDistance } from '../../src/config/closest.js';
import { loadConfigFile } from '../../src/config/config-file.js';
import { parseToml, parseYaml } from '../../src/config/parse-file.js';
import { ALL_SETTINGS } from '../../src/settings/all-settings.js';
import { findSetting } from '../../src/settings/find.js';
import { fileName } from '../../src/settings/setting.js';

let root: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'moestro-config-'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

function write(name: string, text: string): string {
  const path = join(root, name);
  writeFileSync(path, text);
  return path;
}

describe('loadConfigFile()', () => {
  it.each([
    ['a.yaml', 'budget: 1GiB\nport: 9000\ndirect-io: off\napi-key: [k1, k2]\n'],
    ['a.toml', 'budget = "1GiB"\nport = 9000\ndirect-io = false\napi-key = ["k1", "k2"]\n'],
    ['a.json', '{\n\t"budget": "1GiB",\n\t"port": 9000,\n\t"direct-io": false,\n\t"api-key": "k1,k2"\n}'],
  ])('reads %s', async (name, text) => {
    const file = await loadConfigFile(write(name, text), {});
    expect(engineConfig('m', {}, {}, file)).toMatchObject({ budgetBytes: 2 ** 30, io: { direct: false } });
    expect(serverConfig({}, {}, file)).toMatchObject({ port: 9000, apiKeys: ['k1', 'k2'] });
    expect(file?.entries.get('port')?.where).toMatch(/a\.\w+:\d:\d$/);
  });

  it('lets a flag beat a variable, a variable the file, and the file the default', async () => {
    const file = await loadConfigFile(write('b.yaml', 'temperature: 0.1\ntop-p: 0.2\nmin-p: 0.3\n'), {});
    const env = { MOESTRO_TEMPERATURE: '0.4', MOESTRO_TOP_P: '0.5' };
    const { sampling } = samplingConfig({ temperature: 0.6 }, env, file);
    expect(sampling).toMatchObject({ temperature: 0.6, topP: 0.5, minP: 0.3, topK: 40 });
  });

  it('takes the file of the working directory, or the one that the variable names', async () => {
    expect(await loadConfigFile(undefined, {}, join(root, 'empty'))).toBeNull();
    write('moestro.yml', 'port: 1\n');
    const other = write('other.toml', 'port = 2\n');
    expect(serverConfig({}, {}, await loadConfigFile(undefined, {}, root)).port).toBe(1);
    expect(serverConfig({}, {}, await loadConfigFile(undefined, { MOESTRO_CONFIG: other }, root)).port).toBe(2);
  });

  it('takes paths from the folder of the file, and an empty file for no settings', async () => {
    const file = await loadConfigFile(write('c.yaml', 'model: models/a.moe\n'), {});
    expect(file?.entries.get('model')?.text).toBe(join(root, 'models/a.moe'));
    for (const name of ['d.yaml', 'd.toml', 'd.json']) {
      expect((await loadConfigFile(write(name, '\n'), {}))?.entries.size).toBe(0);
    }
  });

  it('lets variables be that other programs make', async () => {
    const env = { MOESTRO_SERVICE_HOST: '10.0.0.1', MOESTRO_PORT_8080_TCP_ADDR: '10.0.0.1' };
    expect(await loadConfigFile(undefined, env, join(root, 'empty'))).toBeNull();
  });
});

describe('parseToml()', () => {
  it('knows a statement from a line inside of a text', async () => {
    const text = 'a = """\nport = 1\n"""\n"b" = [\n  1,\n]\nport = 2\n';
    const entries = await parseToml(text, 'x.toml');
    expect(entries.map(({ key, line }) => [key, line])).toEqual([
      ['a', 1],
      ['b', 4],
      ['port', 7],
    ]);
  });
});

describe('both readers', () => {
  it('refuse or read every text, with an error that names the file', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: fc.constantFrom(...'ab:=-[]{}"\'#&*!|>, \n\t1.') }), async (text) => {
        for (const parse of [parseYaml, parseToml]) {
          const refusal = await parse(text, 'f').then(
            () => null,
            (error: Error) => error.message,
          );
          if (refusal !== null) expect(refusal).toMatch(/^Cannot read f:\d+:\d+: /);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe('moestro config show', () => {
  it('prints a file that says the same, without secrets', async () => {
    const raw = { budget: '2GiB', apiKeys: 'secret', corsOrigins: 'http://a.example', topP: 0.5, host: '::1' };
    const found = new Map(ALL_SETTINGS.map((one) => [one, findSetting(one, { raw, env: {}, file: null })]));
    const text = describeSettings(found, true);
    expect(text).not.toContain('secret');
    expect(text).toMatch(/^budget: 2GiB +# --budget$/m);
    expect(text).toMatch(/^top-k: 40 +# default$/m);
    const file = await loadConfigFile(write('shown.yaml', text), {});
    const { apiKeys: _, ...rest } = raw;
    expect(serverConfig({}, {}, file)).toEqual(serverConfig({ corsOrigins: rest.corsOrigins, host: rest.host }, {}));
    expect(engineConfig('m', {}, {}, file)).toEqual(engineConfig('m', { budget: '2GiB' }, {}));
  });
});

describe('closest()', () => {
  it('counts edits, swaps among them', () => {
    expect(editDistance('bugdet', 'budget')).toBe(1);
    expect(editDistance('', 'abc')).toBe(3);
    expect(editDistance('kitten', 'sitting')).toBe(3);
  });

  it('finds what was meant, or nothing', () => {
    const names = ALL_SETTINGS.map(fileName);
    expect(closest('max_sequence', names)).toBe('max-sequences');
    expect(closest('--log-level', names)).toBe('log-level');
    expect(closest('zzz', names)).toBeNull();
  });
});
