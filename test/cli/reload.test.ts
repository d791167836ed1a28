/** SIGHUP to a real server: keys, sampling and logs follow the file; a mistake leaves everything as it was. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MAIN } from '../helpers/moestro-process.js';

let folder: string;
let child: ChildProcess;
let port: number;
/** Lines of standard error that nobody has read yet, and who waits for one. */
let lines: AsyncIterator<string>;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'moestro-reload-'));
  writeFileSync(join(folder, 'moestro.yaml'), 'port: 0\nbudget: 512MiB\napi-key-file: keys\ntemperature: 0\n');
  writeFileSync(join(folder, 'keys'), 'first\n');
  child = spawn(process.execPath, [MAIN, 'serve'], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  lines = createInterface({ input: child.stderr! })[Symbol.asyncIterator]();
  for await (const line of createInterface({ input: child.stdout! })) {
    const found = /at http:\/\/127\.0\.0\.1:(\d+)/.exec(line)?.[1];
    if (found !== undefined) port = Number(found);
    if (line.startsWith('Ctrl-C')) break;
  }
});
afterEach(async () => {
  const gone = new Promise((resolve) => child.once('close', resolve));
  child.kill('SIGTERM');
  await gone;
  rmSync(folder, { recursive: true, force: true });
});

async function reload(): Promise<string> {
  child.kill('SIGHUP');
  for (;;) {
    const { value, done } = await lines.next();
    if (done === true) throw new Error('the server ended');
    // What the memory does is told on lines of its own.
    if (/^moestro: .*configuration/.test(value)) return value;
  }
}

const status = (headers: Record<string, string>): Promise<number | undefined> =>
  new Promise((resolve, reject) => {
    const asked = request({ port, host: '127.0.0.1', path: '/v1/models', headers }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    asked.on('error', reject);
    asked.end();
  });
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

describe('SIGHUP to moestro serve', () => {
  it('takes what can change, says what cannot, and keeps the old when there is a mistake', async () => {
    expect([await status(bearer('first')), await status(bearer('second'))]).toEqual([200, 401]);
    expect(await status({ ...bearer('first'), host: 'box.example' })).toBe(403);

    writeFileSync(join(folder, 'keys'), '# rotated\nsecond\n');
    expect(await reload()).toBe('moestro: read the configuration again: now in force: api keys');
    expect([await status(bearer('first')), await status(bearer('second'))]).toEqual([401, 200]);

    const file = join(folder, 'moestro.yaml');
    const kept = 'port: 0\nbudget: 512MiB\napi-key-file: keys\n';
    writeFileSync(file, `${kept}temperature: 0.5\nallowed-host: box.example\nthreads: 1\n`);
    expect(await reload()).toBe(
      'moestro: read the configuration again: now in force: allowed-host, temperature; needs a restart: threads',
    );
    expect(await status({ ...bearer('second'), host: 'box.example' })).toBe(200);

    writeFileSync(file, `${kept}allowed-host: [1]\n`);
    expect(await reload()).toMatch(/^moestro: the configuration stays as it was: Cannot use allowed-host \(.*:4:1\)/);
    writeFileSync(join(folder, 'keys'), '');
    writeFileSync(file, `${kept}`);
    expect(await reload()).toMatch(/stays as it was: Cannot use api-key-file .*found no key/);
    expect(await status({ ...bearer('second'), host: 'box.example' })).toBe(200);
    expect(await status({})).toBe(401);
  });
});
