/** `moestro serve` with a configuration that is wrong: what and where it says, each time with status 2. */
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MAIN, type Outcome } from '../helpers/moestro-process.js';

interface WrongConfig {
  readonly files?: Readonly<Record<string, string | Buffer>>;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** What the message has to name: place, key, found, needed. */
  readonly says: readonly (string | RegExp)[];
}

const yaml = (text: string, ...says: readonly (string | RegExp)[]): WrongConfig => ({
  files: { 'moestro.yaml': text },
  says,
});
const toml = (text: string, ...says: readonly (string | RegExp)[]): WrongConfig => ({
  files: { 'moestro.toml': text },
  says,
});
const json = (text: string, ...says: readonly (string | RegExp)[]): WrongConfig => ({
  files: { 'moestro.json': text },
  says,
});

const WRONG: Readonly<Record<string, WrongConfig>> = {
  // names
  'a mistyped name': yaml('port: 0\nbugdet: 1GiB\n', '"bugdet" (moestro.yaml:2:1)', 'did you mean "budget"?'),
  'a name in camel case': yaml(
    'maxSequences: 2\n',
    '"maxSequences" (moestro.yaml:1:1)',
    'did you mean "max-sequences"?',
  ),
  'a name of nothing': yaml('# a remark\n\nflavour: mint\n', '"flavour" (moestro.yaml:3:1)', 'needed one of', 'budget'),
  'settings in a group': yaml('server:\n  port: 80\n', '"server" (moestro.yaml:1:1)', 'found a group'),
  'settings in a table': toml('[server]\nport = 80\n', '"server" (moestro.toml:1:1)', 'found a group'),
  'a dotted name': toml('port = 0\nio.backend = "pread"\n', 'io (moestro.toml:2:1)', 'found a group', 'io_uring'),
  'a name that is no text': yaml('[a, b]: 1\n', 'moestro.yaml:1:', 'a name that is no text'),
  // types
  'a list for a number': yaml('port: [80, 81]\n', 'port (moestro.yaml:1:1)', 'the list [80,81]', '0 to 65535'),
  'a switch for a number': yaml('threads: true\n', 'threads (moestro.yaml:1:1)', 'the word true', '1 to 256'),
  'nothing for a number': yaml(
    'host: 127.0.0.1\nthreads:\n',
    'threads (moestro.yaml:2:1)',
    'found nothing',
    '1 to 256',
  ),
  'a date for a size': toml('budget = 2026-01-01\n', 'budget (moestro.toml:1:1)', 'the date 2026-01-01', '"8GiB"'),
  'a number for a key': yaml('api-key: 0123\n', 'api-key (moestro.yaml:1:1)', 'found a number', 'quotes'),
  'a number among origins': json(
    '{"cors-origin": ["http://a.example", 7]}',
    'cors-origin (moestro.json:1:2)',
    'number 7',
  ),
  'a number for a switch': toml('direct-io = 1\n', 'direct-io (moestro.toml:1:1)', 'the number 1', '"on" or "off"'),
  'words for a number': json('{\n  "queue-depth": "deep"\n}', 'queue-depth (moestro.json:2:3)', '"deep"', '1 to 256'),
  // ranges and units
  'a port out of range': yaml('port: 65536\n', 'port (moestro.yaml:1:1) "65536"', '0 to 65535'),
  'half a thread': yaml('threads: 1.5\n', 'threads (moestro.yaml:1:1) "1.5"', 'a whole number'),
  'a bare unit': toml('chunk = 64\nbudget = "8G"\n', 'budget (moestro.toml:2:1) "8G"', 'the unit "G"', 'or "auto"'),
  'more than everything': yaml('budget: 120%\n', 'budget (moestro.yaml:1:1) "120%"', '0% to 100%'),
  'a size of nothing': yaml('body-limit: 0\n', 'body-limit (moestro.yaml:1:1) "0"', 'found a size outside'),
  'seconds with a unit': yaml('ping-seconds: 10s\n', 'ping-seconds (moestro.yaml:1:1) "10s"', '1 to 3600'),
  'a temperature in degrees': toml('temperature = 20\n', 'temperature (moestro.toml:1:1) "20"', '0 to 2'),
  infinity: yaml('top-p: .inf\n', 'top-p (moestro.yaml:1:1) "Infinity"', '0 to 1'),
  'a mode there is not': yaml('mode: fast\n', 'mode (moestro.yaml:1:1) "fast"', 'one of exact, routed'),
  'a level there is not': yaml('level: 5\n', 'level (moestro.yaml:1:1) "5"', '2, 3, 4, 8'),
  'an origin with a path': yaml(
    'cors-origin:\n  - http://a.example/path\n',
    'cors-origin (moestro.yaml:1:1) "http://a.example/path"',
    'http://localhost:3000',
  ),
  'a host with a port': toml(
    'allowed-host = ["box:80"]\n',
    'allowed-host (moestro.toml:1:1) "box:80"',
    'without a port',
  ),
  'an empty address': json('{"host": ""}', 'host (moestro.json:1:2) ""', 'an address'),
  // syntax
  'a setting twice': yaml('port: 1\nmode: exact\nport: 2\n', 'moestro.yaml:3:1', '"port" a second time'),
  'a setting twice in TOML': toml('port = 1\nport = 2\n', 'moestro.toml:2:1', '"port" a second time'),
  'a setting twice in JSON': json('{"port": 1,\n "port": 2}', 'moestro.json:2:2', '"port" a second time'),
  'a bracket that stays open': yaml('cors-origin: [a\nport: 1\n', 'moestro.yaml:'),
  'a brace that stays open': json('{"port": 1', 'moestro.json:1:'),
  'a quote that stays open': toml('mode = "exact\n', 'moestro.toml:1:'),
  'no value in TOML': toml('port = 1\nmode =\n', 'moestro.toml:2:', 'invalid value'),
  'a tab for an indent': yaml('\tport: 1\n', 'moestro.yaml:1:1', 'Tabs'),
  'an unknown tag': yaml('port: !env PORT\n', 'moestro.yaml:1:', '!env'),
  'an anchor there is not': yaml('port: *default\n', 'moestro.yaml:1:', 'default'),
  'two documents': yaml('port: 1\n---\nport: 2\n', 'moestro.yaml:2:', 'a second document'),
  'a list of settings': yaml('- port: 1\n', 'moestro.yaml:1:', 'found no names of settings'),
  'plain prose': yaml('listen on port eighty\n', 'moestro.yaml:1:1', 'found no names of settings'),
  // files
  'no file': { args: ['--config', 'none.yaml'], says: ['"none.yaml"', 'found nothing there', 'needed a text file'] },
  'no file in the variable': { env: { MOESTRO_CONFIG: 'gone/a.toml' }, says: ['"gone/a.toml"', 'found nothing there'] },
  'a directory': { args: ['--config', 'folder.yaml'], says: ['"folder.yaml"', 'found a directory'] },
  'a device': { args: ['--config', 'null.yaml'], says: ['"null.yaml"', 'no file'] },
  'a path through a file': {
    files: { 'a.txt': '' },
    args: ['--config', 'a.txt/b.yaml'],
    says: ['"a.txt/b.yaml"', 'found a file where a directory'],
  },
  'another ending': {
    files: { 'a.ini': '' },
    args: ['--config', 'a.ini'],
    says: ['--config "a.ini"', '".ini"', '.toml'],
  },
  'no ending': { files: { settings: '' }, args: ['--config', 'settings'], says: ['no ending', '.yaml'] },
  'two files': {
    files: { 'moestro.yaml': '', 'moestro.toml': '' },
    says: ['"moestro.yaml" and "moestro.toml"', '--config'],
  },
  'bytes that are no text': {
    files: { 'moestro.yaml': Buffer.from([0x70, 0xff, 0xfe]) },
    says: ['"moestro.yaml"', 'no UTF-8'],
  },
  'a file of megabytes': {
    files: { 'moestro.yaml': `# ${'x'.repeat(1 << 20)}` },
    says: ['"moestro.yaml"', 'bytes, at most 1048576'],
  },
  // keys in a file
  'a key file that is not there': yaml(
    'api-key-file: keys\n',
    'api-key-file (moestro.yaml:1:1)',
    'keys"',
    'found nothing',
  ),
  'a key file without keys': {
    files: { 'moestro.yaml': 'api-key-file: keys\n', keys: '# none yet\n\n' },
    says: ['api-key-file (moestro.yaml:1:1)', 'found no key', 'at least one'],
  },
  'a key of two words': {
    files: { 'moestro.yaml': 'api-key-file: keys\n', keys: 'good\nnot so good\n' },
    says: ['api-key-file (moestro.yaml:1:1)', 'line 2', 'requests-per-minute=COUNT', 'after the key'],
  },
  'a key that no header can carry': {
    files: { 'moestro.yaml': 'api-key-file: keys\n', keys: 'schlüssel\n' },
    says: ['api-key-file (moestro.yaml:1:1)', 'line 1', 'visible ASCII'],
  },
  'a limit of no requests': {
    files: { 'moestro.yaml': 'api-key-file: keys\n', keys: 'good at-once=0\n' },
    says: ['api-key-file (moestro.yaml:1:1)', 'line 1', 'at-once=COUNT'],
  },
  // settings that contradict each other
  'more mean bits than the level': yaml(
    'level: 3\nmean-bits: 4\n',
    'mean-bits (moestro.yaml:2:1) "4"',
    'level (moestro.yaml:1:1) "3"',
  ),
  'bodies above the budget': {
    files: { 'moestro.yaml': 'body-limit: 2GiB\n' },
    args: ['--budget', '1GiB'],
    says: ['body-limit (moestro.yaml:1:1) "2GiB"', '--budget "1GiB"'],
  },
  'every origin and one more': yaml(
    'cors-origin: ["*", "http://a.example"]\n',
    'cors-origin (moestro.yaml:1:1)',
    'alone',
  ),
  // the world behind the settings
  'a model that is not there': yaml('model: gone.moe\nport: 0\n', 'gone.moe"', 'needed a .moe directory'),
  'an address of another machine': yaml(
    'host: 192.0.2.7\nport: 0\n',
    '"192.0.2.7"',
    'needed an address of this machine',
  ),
  'a budget below the floor': yaml('budget: 40MiB\nport: 0\nbody-limit: 1MiB\n', '40.0 MiB', 'needed at least'),
  // flags and variables
  'a mistyped variable': { env: { MOESTRO_BUGDET: '1GiB' }, says: ['MOESTRO_BUGDET', 'did you mean MOESTRO_BUDGET?'] },
  'a variable of the wrong unit': { env: { MOESTRO_BUDGET: '8Gb/s' }, says: ['MOESTRO_BUDGET "8Gb/s"', '"8GiB"'] },
  'a flag of the wrong unit': { args: ['--body-limit', '1M'], says: ['--body-limit "1M"', 'the unit "M"'] },
};

let root: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'moestro-wrong-'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Runs `moestro serve` in a folder of its own with these files; the environment has no settings but these. */
function serve({ files = {}, args = [], env = {} }: WrongConfig, folder: string): Promise<Outcome> {
  mkdirSync(join(folder, 'folder.yaml'), { recursive: true });
  symlinkSync('/dev/null', join(folder, 'null.yaml'));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('MOESTRO_')));
  return new Promise((resolve) => {
    const options = { cwd: folder, env: { ...clean, ...env }, timeout: 30_000 };
    execFile(process.execPath, [MAIN, 'serve', ...args], options, (error, stdout, stderr) =>
      resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

describe('moestro serve with a wrong configuration', () => {
  it('is tried in more than thirty ways', () => {
    expect(Object.keys(WRONG).length).toBeGreaterThanOrEqual(30);
  });

  it.concurrent.each(Object.entries(WRONG))('says what and where: %s', async (name, wrong) => {
    const { status, stdout, stderr } = await serve(wrong, join(root, name));
    for (const part of wrong.says) {
      if (typeof part === 'string') expect(stderr).toContain(part);
      else expect(stderr).toMatch(part);
    }
    expect(stderr).toMatch(/^moestro: Cannot /);
    expect(stderr).not.toMatch(/^ +at /m);
    expect([status, stdout]).toEqual([2, '']);
  });

  it('says every mistake of a file at once, and never a key', async () => {
    const text = 'port: high\nbudget: 8G\napi-key: "two words"\nmodel: [a]\n';
    const { status, stderr } = await serve(yaml(text), join(root, 'several'));
    expect(status).toBe(2);
    for (const place of ['1:1', '2:1', '3:1', '4:1']) expect(stderr).toContain(`(moestro.yaml:${place})`);
    expect(stderr).not.toContain('two words');
  });

  it('does not start with a file that it may not read', async () => {
    const folder = join(root, 'locked');
    mkdirSync(folder);
    writeFileSync(join(folder, 'locked.yaml'), 'port: 0\n');
    chmodSync(join(folder, 'locked.yaml'), 0);
    const { status, stderr } = await serve({ args: ['--config', 'locked.yaml', '--host', ''], says: [] }, folder);
    // Root may read everything: then it is the flag that is refused.
    expect(stderr).toMatch(process.getuid?.() === 0 ? /--host ""/ : /"locked\.yaml": not allowed to read it/);
    expect(status).toBe(2);
  });
});
