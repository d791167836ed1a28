/**
 * What do four streams notice when the budget is halved and restored under them?
 *   npx tsx bench/live-budget.ts MODEL.moe --budget 2GiB [--least 1GiB] [--streams 4] [--tokens 96]
 *
 * Runs the streams once with the budget left alone and once with it shrunk after a third of the tokens and restored after
 * two. Prints one JSON object: whether exact answers are the same, requests that failed, the longest time between two
 * tokens of a stream (with the budget alone; after the shrinking, the first ten tokens and all until it is restored),
 * milliseconds until RSS was below the new budget, the most RSS above it after that, and what was dropped.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { parseBytes } from '../src/bytes.js';
import { engineConfig } from '../src/config.js';
import { startEngine } from '../src/engine/client.js';
import { type EngineClient, GREEDY } from '../src/engine/types.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    budget: { type: 'string', default: '2GiB' },
    least: { type: 'string' },
    streams: { type: 'string', default: '4' },
    tokens: { type: 'string', default: '96' },
  },
});
const [modelPath] = positionals;
if (modelPath === undefined) throw new Error('needed MODEL.moe');
const budget = parseBytes(values.budget, '--budget', 0);
const least = values.least === undefined ? budget / 2 : parseBytes(values.least, '--least', 0);
const streams = Number(values.streams);
const tokens = Number(values.tokens);

const rss = (): number => 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);

interface Gap {
  readonly atMs: number;
  readonly ms: number;
}

interface Run {
  readonly answers: readonly (readonly number[])[];
  readonly gaps: readonly Gap[];
  readonly failed: number;
}

/** @param onCount called with the number of tokens all streams have had together. */
async function run(client: EngineClient, onCount: (count: number) => void): Promise<Run> {
  const gaps: Gap[] = [];
  const answers: number[][] = [];
  let count = 0;
  let failed = 0;
  const one = async (stream: number): Promise<void> => {
    const promptIds = Array.from({ length: 16 }, (_, i) => 100 + ((stream * 911 + i * 37) % 30_000));
    const answer: number[] = [];
    answers[stream] = answer;
    let last = 0;
    try {
      for await (const event of client.generate({ promptIds, maxTokens: tokens, stopTokenIds: [], sampling: GREEDY })) {
        if (event.kind !== 'token') continue;
        const now = performance.now();
        if (last > 0) gaps.push({ atMs: now, ms: now - last });
        last = now;
        answer.push(event.tokenId);
        onCount(++count);
      }
    } catch (error) {
      ++failed;
      process.stderr.write(`${String(error)}\n`);
    }
  };
  await Promise.all(Array.from({ length: streams }, (_, stream) => one(stream)));
  return { answers, gaps, failed };
}

const longest = (gaps: readonly Gap[]): number => Math.round(Math.max(0, ...gaps.map(({ ms }) => ms)));

const config = engineConfig(modelPath, { budget: String(budget), maxSequences: String(streams), context: '256' }, {});
const client = await startEngine(config);
try {
  const alone = await run(client, () => {});
  let shrunkAt = 0;
  let restoredAt = Number.POSITIVE_INFINITY;
  let belowMs: number | null = null;
  let mostAbove = 0;
  const all = streams * tokens;
  const watch = setInterval(() => {
    if (shrunkAt === 0 || performance.now() > restoredAt) return;
    const above = rss() - least;
    if (belowMs === null && above <= 0) belowMs = Math.round(performance.now() - shrunkAt);
    if (belowMs !== null) mostAbove = Math.max(mostAbove, above);
  }, 5);
  const changed = await run(client, (count) => {
    if (count === Math.floor(all / 3)) {
      shrunkAt = performance.now();
      void client.memory(least);
    }
    if (count === Math.floor((2 * all) / 3)) {
      restoredAt = performance.now();
      void client.memory(budget);
    }
  });
  clearInterval(watch);
  const after = changed.gaps.filter(({ atMs }) => atMs >= shrunkAt && atMs < restoredAt);
  const state = await client.memory();
  process.stdout.write(
    `${JSON.stringify({
      budget,
      least,
      sameAnswers: JSON.stringify(alone.answers) === JSON.stringify(changed.answers),
      failed: alone.failed + changed.failed,
      longestGapMs: {
        alone: longest(alone.gaps),
        rightAfter: longest(after.slice(0, 10 * streams)),
        whileSmall: longest(after),
        restored: longest(changed.gaps.filter(({ atMs }) => atMs >= restoredAt)),
      },
      rssBelowAfterMs: belowMs,
      rssMostAboveBytes: mostAbove,
      shedExperts: state.shedExperts,
      givenBackBytes: state.givenBackBytes,
      movedBytes: state.movedBytes,
    })}\n`,
  );
} finally {
  await client.close();
}
