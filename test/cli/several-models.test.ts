/** Two models behind one address: each is loaded when a request names it, within the same budget. */
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import { MAIN } from '../helpers/moestro-process.js';

const BUDGET = 400 << 20;
let folder: string;
let child: ChildProcess;
let root: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'moestro-models-'));
  const twin = join(folder, 'twin.moe');
  cpSync(BUNDLED_MODEL, twin, { recursive: true, filter: (path) => !path.endsWith('.bin') });
  symlinkSync(join(BUNDLED_MODEL, 'experts.bin'), join(twin, 'experts.bin'));
  const manifest = JSON.parse(readFileSync(join(twin, 'manifest.json'), 'utf8'));
  writeFileSync(join(twin, 'manifest.json'), JSON.stringify({ ...manifest, name: 'twin' }));
  writeFileSync(
    join(folder, 'moestro.yaml'),
    `port: 0\nbudget: ${BUDGET}\nmore-models: [twin.moe]\ntemperature: 0\nthreads: 1\n`,
  );
  child = spawn(process.execPath, [MAIN, 'serve'], { cwd: folder, stdio: ['ignore', 'pipe', 'ignore'] });
  for await (const line of createInterface({ input: child.stdout! })) {
    const found = /at (http:\/\/127\.0\.0\.1:\d+)/.exec(line)?.[1];
    if (found !== undefined) root = found;
    if (line.includes('on demand')) expect(line).toContain('twin');
    if (line.startsWith('Ctrl-C')) break;
  }
});

afterAll(async () => {
  const gone = new Promise((resolve) => child.once('close', resolve));
  child.kill('SIGTERM');
  await gone;
  rmSync(folder, { recursive: true, force: true });
});

const peakRss = (): number =>
  1024 * Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]);

async function ask(model: string): Promise<{ readonly model: string; readonly text: string }> {
  const reply = await fetch(`${root}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model,
      messages: [{ role: 'user', content: 'What is the capital of France?' }],
      max_tokens: 8,
    }),
  });
  const body = (await reply.json()) as { model: string; choices: { message: { content: string } }[] };
  return { model: body.model, text: body.choices[0]!.message.content };
}

describe('moestro serve --more-models', () => {
  it('answers with the model that is named, also when requests for both cross', async () => {
    const answers = await Promise.all(['pocket', 'twin', 'pocket', 'twin'].map(ask));
    expect(answers.map(({ model }) => model)).toEqual(['pocket', 'twin', 'pocket', 'twin']);
    for (const { text } of answers) expect(text).toContain('Paris');
    expect(peakRss()).toBeLessThan(1.02 * BUDGET);
  });

  it('lists both, says which is loaded, and knows no others', async () => {
    await ask('twin');
    const { data } = (await (await fetch(`${root}/v1/models`)).json()) as {
      data: { id: string; moestro: { loaded: boolean } }[];
    };
    expect(data.map(({ id, moestro }) => [id, moestro.loaded])).toEqual([
      ['pocket', false],
      ['twin', true],
    ]);
    const wrong = await fetch(`${root}/v1/embeddings`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'gpt-9', input: 'a' }),
    });
    expect(wrong.status).toBe(404);
  });
});
