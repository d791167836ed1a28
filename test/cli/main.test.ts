/** The command line as a process: exit status, and what goes to which stream. Needs the build that `npm test` makes. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import type { Manifest } from '../../src/model/manifest.js';
import { writeHuggingFace } from '../helpers/tiny-hugging-face.js';
import { servePocket } from '../conformance/served.js';
import { makeTinyModel } from '../helpers/tiny-models.js';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function moestro(args: readonly string[], env: Record<string, string> = {}, input = ''): Promise<Outcome> {
  const child = spawn(process.execPath, [MAIN, ...args], { env: { ...process.env, ...env }, stdio: 'pipe' });
  child.stdin.on('error', () => {}); // A command that reads no input may be gone before it is written.
  child.stdin.end(input);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data) => (stdout += data));
  child.stderr.on('data', (data) => (stderr += data));
  return new Promise((resolve) => child.on('close', (status) => resolve({ status, stdout, stderr })));
}

describe('moestro', () => {
  it('lists its commands', async () => {
    const { status, stdout } = await moestro(['--help']);
    expect(status).toBe(0);
    for (const name of ['serve', 'chat', 'convert', 'inspect', 'eval', 'bench', 'load'])
      expect(stdout).toContain(`  ${name} `);
    expect((await moestro([])).stdout).toBe(stdout);
  });

  it.each([
    ['serve', ['--budget', 'MOESTRO_BUDGET', '--port', '--api-key', '--level', 'Examples']],
    ['chat', ['--temperature', '--system', '--seed', '--max-tokens', '--mode', 'Examples']],
    ['convert', ['--bits', '--calibrate', '--force', 'Examples']],
    ['inspect', ['--json', '--verify', 'the bundled model', 'Examples']],
    ['eval', ['--questions', '--text', '--reference', '--json', 'Examples']],
    ['bench', ['--prompt-tokens', '--streams', '--routing-trace', '--json', 'Examples']],
    ['load', ['--streams', '--requests', '--seconds', '--api-key', '--json', 'Examples']],
  ] as const)('says with %s --help what the command takes', async (name, words) => {
    const { status, stdout } = await moestro([name, '--help']);
    expect(status).toBe(0);
    for (const word of words) expect(stdout).toContain(word);
    expect((await moestro(['help', name])).stdout).toBe(stdout);
    // Where the package lies on this machine is nobody's help.
    expect(stdout.replaceAll(/\s/g, '')).not.toContain(BUNDLED_MODEL);
  });

  it('chat prints the answer alone, and --stop leaves PROMPT a prompt', async () => {
    const question = 'What is the capital of France?';
    const greedy = ['chat', BUNDLED_MODEL, '--temperature', '0'];
    expect(await moestro([...greedy, question])).toEqual({
      status: 0,
      stdout: 'The capital of France is Paris.\n',
      stderr: '',
    });
    const { stdout } = await moestro([...greedy, '--stop', 'Lima', '--stop', ' is', question]);
    expect(stdout).toBe('The capital of France\n');
  });

  it('chat answers piped lines without prompts, and goes on after one that is too long', async () => {
    const input = `${'word '.repeat(3000)}\n\nWhat is the capital of France?\n/quit\n`;
    const { status, stdout, stderr } = await moestro(['chat', BUNDLED_MODEL, '--temperature', '0'], {}, input);
    expect([status, stdout]).toEqual([0, 'The capital of France is Paris.\n']);
    expect(stderr).toMatch(/^moestro: Cannot take a prompt of \d+ tokens: [^\n]*\n {2}hint: \/reset [^\n]*\n$/);
  });

  it('chat takes back, asks anew, changes instructions and tells where it stands', async () => {
    const question = 'What is the capital of France?';
    const lines = [
      '/retry',
      question,
      '/retry',
      '/undo',
      '/retry',
      '/system Be brief.',
      '/status',
      '/bogus x',
      '/quit',
    ];
    const chat = ['chat', BUNDLED_MODEL, '--temperature', '0'];
    const { status, stdout, stderr } = await moestro(chat, {}, `${lines.join('\n')}\n`);
    expect([status, stdout]).toEqual([0, 'The capital of France is Paris.\n'.repeat(2)]);
    const said = stderr.split('\n').map((line) => line.trim());
    expect(said.slice(0, 4)).toEqual(['nothing was asked', 'forgotten', 'nothing was asked', 'from now on']);
    expect(said[5]).toMatch(/^0 questions in this conversation, .* in use, hit rate [01]\.\d{3}$/);
    expect(said[6]).toBe('no command /bogus; /help lists them');
  });

  it('load says how a server feels, and refuses what is none', async () => {
    const served = await servePocket();
    try {
      const asked = ['load', served.root, '--streams', '3', '--requests', '6', '--new-tokens', '5', '--json'];
      const { status, stdout } = await moestro(asked);
      expect(status).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({
        url: `${served.baseURL}/chat/completions`,
        streams: 3,
        answered: 6,
        rejected: 0,
        failed: 0,
        tokens: 30,
        statuses: { 200: 6 },
        interTokenMs: { p50: expect.any(Number), p99: expect.any(Number) },
      });
      const table = await moestro(['load', served.baseURL, '--requests', '1', '--new-tokens', '2', '--completions']);
      expect(table.stdout).toMatch(/^answers +1 whole, 0 turned away, 0 failed$/m);
    } finally {
      await served.close();
    }
    const nowhere = await moestro(['load', 'nowhere', '--streams', '1']);
    expect([nowhere.status, nowhere.stderr]).toEqual([2, expect.stringContaining('Cannot use "nowhere"')]);
    const silent = await moestro(['load', served.root, '--streams', '1', '--requests', '1']);
    expect([silent.status, silent.stderr]).toEqual([1, expect.stringContaining('found no whole answer')]);
  });

  it('convert --calibrate tells its stretches of work one after the other', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'moestro-cli-'));
    const [source, sample, out] = ['source', 'sample.txt', 'tiny.moe'].map((name) => join(directory, name)) as [
      string,
      string,
      string,
    ];
    try {
      writeHuggingFace(makeTinyModel('olmoe', 5), source);
      writeFileSync(sample, 'some words to weigh errors by '.repeat(40));
      const { status, stdout, stderr } = await moestro([
        'convert',
        source,
        out,
        '--calibrate',
        sample,
        '--threads',
        '1',
      ]);
      expect(stderr).toMatch(
        /^experts: 100 %[^\n]*\ncalibration: 100 %[^\n]*\nexperts: 100 %[^\n]*\nprecision: 100 %[^\n]*\n$/,
      );
      const { precision } = JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8')) as Manifest;
      expect(precision?.sensitivities.length).toBeGreaterThan(0);
      expect(stdout).toContain(`try it: moestro chat ${out}`);
      expect(status).toBe(0);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

  it.each([
    [['dance'], /moestro: unknown command 'dance'/],
    [['serve', '--bugdet', '1GiB'], /moestro: unknown option '--bugdet'\n\(Did you mean --budget\?\)/],
    [['serve', '--budget', '8G'], /^moestro: Cannot use --budget "8G": .*needed.*\n {2}hint: /],
    [['serve', '--port', '99999'], /^moestro: Cannot use --port "99999"/],
    [['chat'], /missing required argument 'model'/],
    [['chat', '/nowhere.moe', 'hi', '--temperature', 'hot'], /^moestro: Cannot use --temperature "hot"/],
    [['chat', '/nowhere.moe', 'hi'], /^moestro: Cannot [^\n]*\/nowhere\.moe[^\n]*\n {2}hint: a model is a directory/],
  ])('refuses %j with status 2 and says why', async (args, message) => {
    const { status, stdout, stderr } = await moestro(args);
    expect(stderr).toMatch(message);
    expect([status, stdout]).toEqual([2, '']);
  });

  it('names the variable when that is what is wrong', async () => {
    const { status, stderr } = await moestro(['serve'], { MOESTRO_MODE: 'fast' });
    expect(stderr).toContain('MOESTRO_MODE "fast"');
    expect(status).toBe(2);
  });

  it('serve exits with 1 and says what to do when the port is taken', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const port = String((taken.address() as AddressInfo).port);
    const { status, stdout, stderr } = await moestro(['serve', '--port', port]);
    taken.close();
    expect(stderr).toMatch(/^moestro: Cannot listen on 127\.0\.0\.1:\d+: the port is taken.*\n {2}hint: .*--port/);
    expect([status, stdout]).toEqual([1, '']);
  });

  it('BUNDLED_MODEL stands in models/ of the package', () => {
    expect(BUNDLED_MODEL).toBe(fileURLToPath(new URL('../../models/pocket.moe', import.meta.url)));
  });
});
