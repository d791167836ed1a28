/**
 * What does a command need when it may take so many bytes and no more, its page cache included?
 *   npx tsx bench/run-limited.ts --limit 2GiB [--file EXPERTS] [--keep-cache] [--name NAME] [--out FILE] -- COMMAND...
 *
 * Runs the command in a memory cgroup of exactly that size, with the page cache dropped before, and prints one JSON object:
 * limitBytes, peakBytes, limitHits, oomKills, exit status, wall seconds; with --file (a large file of the model) what the
 * disk gave before and after, what the device read meanwhile, and how much of the file the page cache holds afterwards.
 * `result` is the last line of the command's output that is JSON. Needs root.
 */
import { execFileSync, spawn } from 'node:child_process';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { parseBytes } from '../src/bytes.js';
import { cachedBytes, deviceReadBytes, probeDisk } from './disk.js';
import { createMemoryCgroup, type MemoryCgroup } from './memory-cgroup.js';

interface Ended {
  readonly status: number | null;
  readonly signal: string | null;
  readonly wallSeconds: number;
  readonly output: string;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      limit: { type: 'string' },
      file: { type: 'string' },
      name: { type: 'string' },
      out: { type: 'string' },
      'keep-cache': { type: 'boolean', default: false },
    },
  });
  if (values.limit === undefined || positionals.length === 0) {
    throw new Error('needed --limit BYTES -- COMMAND...');
  }
  const limitBytes = parseBytes(values.limit, '--limit', 0);
  const { file } = values;
  if (values['keep-cache'] !== true) dropCaches();
  const cgroup = createMemoryCgroup(`moestro-bench-${process.pid}`, limitBytes);
  try {
    const loadBefore = loadavg()[0];
    const probeBefore = file === undefined ? undefined : await probeDisk(file);
    const readBefore = file === undefined ? undefined : deviceReadBytes(file);
    const ended = await runInside(cgroup, positionals);
    const readAfter = file === undefined ? undefined : deviceReadBytes(file);
    const cached = file === undefined ? undefined : cachedBytes(file);
    const probeAfter = file === undefined ? undefined : await probeDisk(file);
    const line = JSON.stringify({
      name: values.name,
      command: positionals.join(' '),
      limitBytes,
      ...cgroup.usage(),
      status: ended.status,
      signal: ended.signal ?? undefined,
      wallSeconds: round(ended.wallSeconds),
      loadBefore: round(loadBefore ?? 0),
      ...(file === undefined
        ? {}
        : {
            probeGBs: [round(probeBefore ?? 0), round(probeAfter ?? 0)],
            deviceReadBytes: readBefore === undefined || readAfter === undefined ? undefined : readAfter - readBefore,
            cachedBytes: cached,
          }),
      result: lastJson(ended.output),
    });
    process.stdout.write(`${line}\n`);
    if (values.out !== undefined) appendFileSync(values.out, `${line}\n`);
    process.exitCode = ended.status ?? 1;
  } finally {
    cgroup.remove();
  }
}

const round = (value: number): number => Math.round(value * 1000) / 1000;

/** Dirty pages are written out first: they cannot be dropped. */
function dropCaches(): void {
  execFileSync('sync');
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

/** A shell moves itself into the group and then becomes the command, so that not a page is charged elsewhere. */
async function runInside(cgroup: MemoryCgroup, command: readonly string[]): Promise<Ended> {
  const start = performance.now();
  const script = 'echo $$ > "$0" && exec "$@"';
  const child = spawn('/bin/sh', ['-c', script, cgroup.procsPath, ...command], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const [status, signal] = await new Promise<[number | null, string | null]>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, name) => resolve([code, name]));
  });
  const wallSeconds = (performance.now() - start) / 1000;
  await emptied(cgroup);
  return { status, signal, wallSeconds, output };
}

/** Threads of a process that has ended may still be on their way out: the group can be removed only after them. */
async function emptied(cgroup: MemoryCgroup): Promise<void> {
  for (let attempt = 0; attempt < 100; ++attempt) {
    if (readFileSync(cgroup.procsPath, 'utf8').trim() === '') return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function lastJson(output: string): unknown {
  for (const line of output.trim().split('\n').reverse()) {
    if (!line.startsWith('{')) continue;
    try {
      return JSON.parse(line);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
  }
  return undefined;
}

await main();
