/**
 * Does a server stand 200 clients for minutes, some of which leave, read slowly or send nonsense?
 *   npx tsx bench/load.ts [MODEL.moe] [--clients 200] [--seconds 300] [--tokens 48] [--flags="--max-sequences 8"]
 *
 * Starts `moestro serve` from dist/ on the bundled model and drives it by bench/rough-clients.ts. Prints one JSON object:
 * requests by kind and status, what was wrong (bar: nothing), spread of the time between two tokens of clients that read
 * as fast as they can (bar: p99 at most 5 times the median), RSS of the server by tenths of the time (bar: flat after the
 * first), and sequences and KV blocks in use after the last client has gone (bar: 0). Exit status 1 when a bar is missed.
 * Inside of each time: server, network and clients, which share the processors.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { BUNDLED_MODEL } from '../src/cli/bundled.js';
import { spread } from '../src/load/figures.js';
import { runRoughClients } from './rough-clients.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    clients: { type: 'string', default: '200' },
    seconds: { type: 'string', default: '300' },
    tokens: { type: 'string', default: '48' },
    seed: { type: 'string', default: '1' },
    flags: { type: 'string', default: '' },
  },
});
const PARTS = 10;
/** Heaps of Node.js breathe by some MiB; what leaks grows by requests, and there are thousands of them. */
const RSS_GROWTH_MAX = 1.05;
const GAP_RATIO_MAX = 5;

const model = positionals[0] ?? BUNDLED_MODEL;
const flags = values.flags.split(' ').filter((flag) => flag !== '');
const server = spawn(process.execPath, ['dist/cli/main.js', 'serve', model, '--port', '0', ...flags], {
  stdio: ['ignore', 'pipe', 'pipe'],
});
const rssBytes = (): number =>
  1024 * Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))?.[1]);

/** The address, from what it prints when it listens. */
function listening(): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = '';
    const read = (data: Buffer): void => {
      said += data.toString();
      const address = /http:\/\/127\.0\.0\.1:\d+/.exec(said)?.[0];
      if (address !== undefined) resolve(address);
    };
    server.stdout.on('data', read);
    server.stderr.on('data', read);
    server.once('exit', (status) => reject(new Error(`the server ended with ${status}: ${said}`)));
  });
}

try {
  const root = await listening();
  const metric = async (name: string): Promise<number> => {
    const text = await (await fetch(`${root}/metrics`)).text();
    return Number(new RegExp(`^moestro_${name} (\\S+)$`, 'm').exec(text)?.[1]);
  };
  while ((await fetch(`${root}/health/ready`)).status !== 200) await sleep(50);
  const seconds = Number(values.seconds);
  const endMs = performance.now() + 1000 * seconds;
  const rss: number[] = [];
  const watch = setInterval(() => rss.push(rssBytes()), (1000 * seconds) / PARTS / 10);
  const tally = await runRoughClients({
    url: new URL(`${root}/v1/chat/completions`),
    clients: Number(values.clients),
    seed: Number(values.seed),
    tokensMax: Number(values.tokens),
    isOver: () => performance.now() >= endMs,
    now: () => performance.now(),
    sleep: (ms) => sleep(ms),
    pauseMsMax: 2000,
  });
  clearInterval(watch);
  while ((await metric('sequences_open')) + (await metric('sequences_queued')) > 0) await sleep(20);
  const gaps = spread(tally.gapsMs);
  const parts = Array.from({ length: PARTS }, (_, part) =>
    Math.max(...rss.slice(Math.floor((part * rss.length) / PARTS), Math.floor(((part + 1) * rss.length) / PARTS))),
  );
  const growth = parts.at(-1)! / parts[1]!;
  const gapRatio = gaps === null ? Number.NaN : gaps.p99 / gaps.p50;
  const left = { sequences: await metric('sequences_open'), kvBlocks: await metric('kv_blocks_used') };
  const isGood =
    tally.wrong.length === 0 &&
    gapRatio <= GAP_RATIO_MAX &&
    growth <= RSS_GROWTH_MAX &&
    left.sequences === 0 &&
    left.kvBlocks === 0;
  process.stdout.write(
    `${JSON.stringify({
      isGood,
      clients: Number(values.clients),
      seconds,
      requests: tally.requests,
      statuses: tally.statuses,
      wrong: { count: tally.wrong.length, first: tally.wrong.slice(0, 5) },
      interTokenMs: gaps,
      gapRatio: Number(gapRatio.toPrecision(3)),
      rssMiB: parts.map((bytes) => Math.round(bytes / 2 ** 20)),
      rssGrowth: Number(growth.toPrecision(4)),
      left,
      stepGapMaxMs: 1000 * (await metric('step_gap_max_seconds')),
    })}\n`,
  );
  process.exitCode = isGood ? 0 : 1;
} finally {
  server.kill('SIGTERM');
}
