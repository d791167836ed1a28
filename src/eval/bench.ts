/**
 * How fast is a model on this machine? Each repeat answers one prompt of random token ids with a fixed number of tokens;
 * a short one before them warms the caches, so that figures are those of a server that has been running.
 *
 * Inside the timed window: for prefill what the engine counts from taking the request up to the first token; for decode the
 * time between the first token and the last as the caller sees it, thread crossings and all.
 */
import { readFileSync } from 'node:fs';
import type { EngineClient, EngineMetrics, PrefetchMetrics, Sampling } from '../engine/types.js';
import { GREEDY } from '../engine/types.js';
import { randomWords } from '../model/synthetic/random-pool.js';

/** Tokens are drawn, as chats draw them: a greedy answer may run into a loop, which asks for the experts it has just had. */
const DRAWN: Sampling = { ...GREEDY, temperature: 1, topK: 40, seed: 1 };

export interface BenchRequest {
  readonly promptTokens: number;
  readonly newTokens: number;
  readonly repeats: number;
  readonly seed: number;
  readonly onProgress: (line: string) => void;
}

export interface BenchResult {
  readonly model: string;
  readonly level: number;
  readonly mode: string;
  readonly budgetBytes: number;
  /** What the whole process took at most: VmHWM. */
  readonly peakRssBytes: number;
  readonly promptTokens: number;
  readonly newTokens: number;
  /** Tokens a second, medians over the repeats like all that follows. */
  readonly prefillTps: number;
  readonly decodeTps: number;
  readonly ttftMs: number;
  /** Milliseconds a decoded token waited for reads. */
  readonly stallMs: number;
  readonly bytesReadPerToken: number;
  /** Of decode steps: experts found resident, of all asked for. */
  readonly hitRate: number;
  /** Reads on a guess, over all of it. */
  readonly prefetch: PrefetchMetrics;
  readonly threads: number;
  readonly isa: string;
}

type Run = Pick<BenchResult, 'prefillTps' | 'decodeTps' | 'ttftMs' | 'stallMs' | 'bytesReadPerToken' | 'hitRate'>;

/** Runs the repeats one after another. `now` in milliseconds. Throws what the engine throws. */
export async function runBench(
  client: EngineClient,
  request: BenchRequest,
  now: () => number = () => performance.now(),
): Promise<BenchResult> {
  const { promptTokens, newTokens, repeats } = request;
  const nextWord = randomWords(request.seed);
  const prompt = (length: number) => Array.from({ length }, () => nextWord() % client.info.vocabSize);
  await runOnce(client, prompt(Math.min(16, promptTokens)), Math.min(8, newTokens), now);
  const runs: Run[] = [];
  for (let repeat = 1; repeat <= repeats; ++repeat) {
    const run = await runOnce(client, prompt(promptTokens), newTokens, now);
    runs.push(run);
    request.onProgress(
      `${repeat}/${repeats}  prefill ${run.prefillTps.toFixed(2)} tok/s  decode ${run.decodeTps.toFixed(2)} tok/s`,
    );
  }
  const { modelName, level, mode, memory, threads, isa } = client.info;
  const median = (key: keyof Run) => round(medianOf(runs.map((run) => run[key])));
  return {
    model: modelName,
    level,
    mode,
    budgetBytes: memory.total,
    peakRssBytes: peakRssBytes(),
    promptTokens,
    newTokens,
    prefillTps: median('prefillTps'),
    decodeTps: median('decodeTps'),
    ttftMs: median('ttftMs'),
    stallMs: median('stallMs'),
    bytesReadPerToken: Math.round(median('bytesReadPerToken')),
    hitRate: median('hitRate'),
    prefetch: (await client.metrics()).prefetch,
    threads,
    isa,
  };
}

async function runOnce(
  client: EngineClient,
  promptIds: readonly number[],
  newTokens: number,
  now: () => number,
): Promise<Run> {
  const before = await client.metrics();
  const start = now();
  let first = start;
  let last = start;
  let tokens = 0;
  let prefillMs = 0;
  // No stop token: a random model might say any, and every run must be of one length.
  const ask = { promptIds, maxTokens: newTokens, stopTokenIds: [], sampling: DRAWN };
  for await (const event of client.generate(ask)) {
    if (event.kind === 'token') {
      last = now();
      if (tokens++ === 0) first = last;
    } else if (event.kind === 'finish') prefillMs = event.usage.prefillMs;
  }
  return figures(before, await client.metrics(), {
    prefillTps: (1000 * promptIds.length) / prefillMs,
    decodeTps: tokens < 2 ? 0 : (1000 * (tokens - 1)) / (last - first),
    ttftMs: first - start,
  });
}

/** The rest comes from the engine's counters of decode steps; the first token belongs to prefill. */
function figures(
  before: EngineMetrics,
  after: EngineMetrics,
  timed: Pick<Run, 'prefillTps' | 'decodeTps' | 'ttftMs'>,
): Run {
  const tokens = Math.max(1, after.tokensDecoded - before.tokensDecoded);
  const hits = after.decode.hits - before.decode.hits;
  const misses = after.decode.misses - before.decode.misses;
  return {
    ...timed,
    stallMs: (after.decode.stallMs - before.decode.stallMs) / tokens,
    bytesReadPerToken: (after.decode.bytesRead - before.decode.bytesRead) / tokens,
    hitRate: hits + misses === 0 ? 1 : hits / (hits + misses),
  };
}

/** The middle value; of an even number the mean of the middle two. */
export function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Five significant digits: what is beyond them is noise. */
const round = (value: number): number => (Number.isFinite(value) ? Number(value.toPrecision(5)) : 0);

function peakRssBytes(): number {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return line === null ? process.memoryUsage().rss : Number(line[1]) * 1024;
}
