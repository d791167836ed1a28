/**
 * How long does a first token take with a prefix that is known, in memory and on disk after a restart, beside one that is not?
 *   npx tsx bench/prefix-ttft.ts MODEL.moe --budget 4GiB [--prefix 512] [--suffixes 1,8,32] [--repeat 2]
 *     [--together 4] [--folder DIR]
 *
 * A prompt is a prefix and a suffix of random tokens of its own. For each repeat: cold (nothing known of it), then from memory with each
 * length of suffix; then the engine is closed and opened again over the folder, whose files are dropped from the page cache
 * first (fsync and POSIX_FADV_DONTNEED, by dd), and each prefix is asked for once with each length. Last, so many prompts that begin with
 * one new prefix come together, once with prefixes kept and once without: until the last of them has its first token. In the timed window: from
 * asking the engine thread to the first token's event, experts read as they are missing. A prompt of 48 other tokens comes first, so
 * that the experts in memory are those of a server that has been running. Prints one JSON object, milliseconds.
 *
 * The sketch: 512 tokens ask for nearly every expert of every layer, so cold is a sweep of the file; one token asks for topK of them.
 * 512 tokens of keys and values of Qwen3-30B-A3B are 50 MB, which a disk of 1.3 GB/s reads in 40 ms.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { engineConfig } from '../src/config.js';
import { startEngine } from '../src/engine/client.js';
import { type EngineClient, GREEDY } from '../src/engine/types.js';
import { medianOf } from '../src/eval/bench.js';
import { randomWords } from '../src/model/synthetic/random-pool.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    budget: { type: 'string', default: '4GiB' },
    prefix: { type: 'string', default: '512' },
    suffixes: { type: 'string', default: '1,8,32' },
    repeat: { type: 'string', default: '2' },
    together: { type: 'string', default: '4' },
    folder: { type: 'string', default: '/tmp' },
  },
});
const [modelPath] = positionals;
if (modelPath === undefined) throw new Error('needed MODEL.moe');
const suffixes = values.suffixes.split(',').map(Number);
const nextWord = randomWords(7);
const folder = mkdtempSync(join(values.folder, 'prefix-ttft-'));
const config = engineConfig(modelPath, { budget: values.budget, prefixDir: folder, prefixMemory: '4GiB' }, {});

const tokens = (engine: EngineClient, count: number): number[] =>
  Array.from({ length: count }, () => nextWord() % engine.info.vocabSize);

interface First {
  readonly ms: number;
  readonly cachedTokens: number;
}

async function first(engine: EngineClient, promptIds: readonly number[]): Promise<First> {
  const from = performance.now();
  let ms = Number.NaN;
  for await (const event of engine.generate({ promptIds, maxTokens: 1, stopTokenIds: [], sampling: GREEDY })) {
    if (event.kind === 'token') ms = performance.now() - from;
    if (event.kind === 'finish') return { ms, cachedTokens: event.usage.cachedTokens };
  }
  throw new Error('the answer did not finish');
}

function dropFromPageCache(path: string): void {
  for (const entry of readdirSync(path, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.kv')) continue;
    const file = join(entry.parentPath, entry.name);
    execFileSync('dd', [`of=${file}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0'], { stdio: 'ignore' });
  }
}

const figures = (runs: readonly First[]) => ({
  ms: runs.map(({ ms }) => Number(ms.toFixed(1))),
  medianMs: Number(medianOf(runs.map(({ ms }) => ms)).toFixed(1)),
  cachedTokens: runs.map(({ cachedTokens }) => cachedTokens),
});

try {
  const cold: First[] = [];
  const memory = new Map<number, First[]>(suffixes.map((length) => [length, []]));
  const disk = new Map<number, First[]>(suffixes.map((length) => [length, []]));
  let engine = await startEngine(config);
  await first(engine, tokens(engine, 48));
  const prefixes = Array.from({ length: Number(values.repeat) }, () => tokens(engine, Number(values.prefix)));
  for (const prefix of prefixes) {
    cold.push(await first(engine, [...prefix, ...tokens(engine, 1)]));
    for (const [length, runs] of memory) runs.push(await first(engine, [...prefix, ...tokens(engine, length)]));
  }
  const { prefix: kept } = await engine.metrics();
  const { info } = engine;
  let from = performance.now();
  await engine.close();
  const closeMs = performance.now() - from;
  dropFromPageCache(folder);
  from = performance.now();
  // Less memory for kept blocks than there was: each suffix reads the prefix from disk again, not from memory.
  engine = await startEngine({ ...config, prefix: { ...config.prefix!, memoryBytes: 0 } });
  const openMs = performance.now() - from;
  await first(engine, tokens(engine, 48));
  for (const prefix of prefixes) {
    for (const [length, runs] of disk) {
      runs.push(await first(engine, [...prefix, ...tokens(engine, length)]));
      dropFromPageCache(folder);
    }
  }
  const restored = (await engine.metrics()).prefix;
  await engine.close();
  const togetherMs: Record<string, number> = {};
  for (const prefix of [config.prefix!, null]) {
    engine = await startEngine({ ...config, prefix: prefix && { ...prefix, directory: null } });
    await first(engine, tokens(engine, 48));
    const common = tokens(engine, Number(values.prefix));
    from = performance.now();
    await Promise.all(
      Array.from({ length: Number(values.together) }, () => first(engine, [...common, ...tokens(engine, 8)])),
    );
    togetherMs[prefix === null ? 'off' : 'on'] = Math.round(performance.now() - from);
    await engine.close();
  }
  const share = (runs: readonly First[]) => Number((figures(runs).medianMs / figures(cold).medianMs).toFixed(4));
  const rows = (of: ReadonlyMap<number, First[]>) =>
    Object.fromEntries([...of].map(([length, runs]) => [length, { ...figures(runs), ofCold: share(runs) }]));
  process.stdout.write(
    `${JSON.stringify({
      model: info.modelName,
      budgetBytes: info.memory.total,
      kvBlocks: info.memory.kvBlocks,
      residentExperts: info.memory.residentExperts,
      cold: figures(cold),
      memoryBySuffix: rows(memory),
      diskBySuffix: rows(disk),
      closeMs: Math.round(closeMs),
      openMs: Math.round(openMs),
      together: Number(values.together),
      togetherMs,
      kept,
      restored,
    })}\n`,
  );
} finally {
  rmSync(folder, { recursive: true });
}
