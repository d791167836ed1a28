/** The command line as a process: exit status, and what goes to which stream. Needs the build that `npm test` makes. */
import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function moestro(args: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
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
    for (const name of ['serve', 'chat', 'convert', 'inspect', 'eval', 'bench']) expect(stdout).toContain(`  ${name} `);
    expect((await moestro([])).stdout).toBe(stdout);
  });

  it.each([
    ['serve', ['--budget', 'MOESTRO_BUDGET', '--port', '--api-key', '--level', 'Examples']],
    ['chat', ['--temperature', '--system', '--seed', '--max-tokens', '--mode']],
  ] as const)('says with %s --help what the command takes', async (name, words) => {
    const { status, stdout } = await moestro([name, '--help']);
    expect(status).toBe(0);
    for (const word of words) expect(stdout).toContain(word);
    expect((await moestro(['help', name])).stdout).toBe(stdout);
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
