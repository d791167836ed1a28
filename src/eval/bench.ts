/**
 * How fast is a model on this machine? Each repeat answers one prompt of random token ids a stream with a fixed number of
 * tokens, all streams at once; a short one before them warms the caches, so that figures are those of a server that has been
 * running.
 *
 * Inside the timed window: for prefill what the engine counts from taking the requests up to the first token of the last; for
 * decode the time from then to the last token as the caller sees it, thread crossings and all.
 */
import { readFileSync } from 'node:fs';
import type { EngineMetrics, PrefetchMetrics } from '../engine/engine-metrics.js';
import type { EngineClient, Sampling } from '../engine/types.js';
import { GREEDY } from '../engine/types.js';
import { randomWords } from '../model/synthetic/random-pool.js';

/** Tokens are drawn, as chats draw them: a greedy answer may run into a loop, which asks for the experts it has just had. */
const DRAWN: Sampling = { ...GREEDY, temperature: 1, topK: 40, seed: 1 };

export interface BenchRequest {
  readonly promptTokens: number;
  readonly newTokens: number;
  /** Answers at once. */
  readonly streams: number;
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
  /** Answers at once that the memory is divided for. */
  readonly maxSequences: number;
  readonly promptTokens: number;
  readonly newTokens: number;
  readonly streams: number;
  /** Tokens a second of all streams together, medians over the repeats like all that follows. */
  readonly prefillTps: number;
  readonly decodeTps: number;
  /** Until the last stream has its first token. */
  readonly ttftMs: number;
  /** The longest that a stream waited for its next token. */
  readonly gapMs: number;
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

type Timed = Pick<BenchResult, 'prefillTps' | 'decodeTps' | 'ttftMs' | 'gapMs'>;
type Run = Timed & Pick<BenchResult, 'stallMs' | 'bytesReadPerToken' | 'hitRate'>;

/** Runs the repeats one after another. `now` in milliseconds. Throws what the engine throws. */
export async function runBench(
  client: EngineClient,
  request: BenchRequest,
  now: () => number = () => performance.now(),
): Promise<BenchResult> {
  const { promptTokens, newTokens, streams, repeats } = request;
  const nextWord = randomWords(request.seed);
  const prompt = (length: number) => Array.from({ length }, () => nextWord() % client.info.vocabSize);
  const prompts = () => Array.from({ length: streams }, () => prompt(promptTokens));
  await runOnce(client, [prompt(Math.min(16, promptTokens))], Math.min(8, newTokens), now);
  const runs: Run[] = [];
  for (let repeat = 1; repeat <= repeats; ++repeat) {
    const run = await runOnce(client, prompts(), newTokens, now);
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
    maxSequences: memory.maxSequences,
    promptTokens,
    newTokens,
    streams,
    prefillTps: median('prefillTps'),
    decodeTps: median('decodeTps'),
    ttftMs: median('ttftMs'),
    gapMs: median('gapMs'),
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
  prompts: readonly (readonly number[])[],
  newTokens: number,
  now: () => number,
): Promise<Run> {
  const before = await client.metrics();
  const start = now();
  const answers = await Promise.all(prompts.map((promptIds) => timeAnswer(client, promptIds, newTokens, now)));
  return figures(before, await client.metrics(), timed(answers, start, prompts.flat().length));
}

interface TimedAnswer {
  /** When each token came. */
  readonly times: readonly number[];
  readonly prefillMs: number;
}

async function timeAnswer(
  client: EngineClient,
  promptIds: readonly number[],
  newTokens: number,
  now: () => number,
): Promise<TimedAnswer> {
  const times: number[] = [];
  let prefillMs = 0;
  // No stop token: a random model might say any, and every run must be of one length.
  const ask = { promptIds, maxTokens: newTokens, stopTokenIds: [], sampling: DRAWN };
  for await (const event of client.generate(ask)) {
    if (event.kind === 'token') times.push(now());
    else if (event.kind === 'finish') prefillMs = event.usage.prefillMs;
  }
  return { times, prefillMs };
}

/** Tokens that come while a prompt of another stream is still computed are no part of the rate of decoding. */
export function timed(answers: readonly TimedAnswer[], start: number, promptTokens: number): Timed {
  const first = Math.max(...answers.map(({ times }) => times[0]!));
  const last = Math.max(...answers.map(({ times }) => times.at(-1)!));
  const gaps = answers.flatMap(({ times }) => times.slice(1).map((time, i) => time - times[i]!));
  // The first token of the stream that was last belongs to its prompt, and those of one step come at once.
  const decoded = answers.reduce((sum, { times }) => sum + times.filter((time) => time > first).length, 0);
  return {
    prefillTps: (1000 * promptTokens) / Math.max(...answers.map(({ prefillMs }) => prefillMs)),
    decodeTps: decoded === 0 ? 0 : (1000 * decoded) / (last - first),
    ttftMs: first - start,
    gapMs: Math.max(0, ...gaps),
  };
}

/** The rest comes from the engine's counters of decode steps; the first token belongs to prefill. */
function figures(before: EngineMetrics, after: EngineMetrics, timed: Timed): Run {
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
