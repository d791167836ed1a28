/**
 * Does the replay agree with the hit rates that were published beside the Qwen3 traces, over their whole 8,000 tokens?
 *
 *   npx tsx bench/trace-tables.ts TRACES_FOLDER
 *
 * Caches of one layer, event by event; decay .98 a token is a half-life of 34.3. The tables of OLMoE and Kimi-Linear are held by
 * test/replay/replay.test.ts. Exits with 1 when a figure is a point or more away. Nothing is timed.
 */
import { join } from 'node:path';
import { openTrace } from '../src/replay/open-trace.js';
import { parsePolicy } from '../src/replay/policies.js';
import { replayBelady } from '../src/replay/replay-belady.js';
import { replayCache } from '../src/replay/replay-cache.js';
import { hitRate } from './baselines.js';

const HALF_LIFE = Math.log(0.5) / Math.log(0.98);
/** By experts kept of 128: LRU, decayed use, Belady. */
const TABLES: Readonly<Record<string, readonly (readonly [number, number, number, number])[]>> = {
  'qwen3-30b-a3b.code.u8': [
    [16, 0.659, 0.701, 0.806],
    [32, 0.845, 0.864, 0.924],
    [64, 0.963, 0.967, 0.984],
  ],
  'qwen3-30b-a3b.general.u8': [
    [16, 0.604, 0.628, 0.764],
    [32, 0.787, 0.804, 0.896],
    [64, 0.952, 0.958, 0.98],
  ],
};

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error('Cannot compare: needed TRACES_FOLDER');
let worst = 0;
for (const [file, table] of Object.entries(TABLES)) {
  const trace = openTrace(join(folder, file), {});
  for (const [kept, ...published] of table) {
    const share = kept / 128;
    const rate = (policy: string) => hitRate(replayCache(trace, share, parsePolicy(policy), 'layer', 'event'), trace);
    const found = [rate('lru'), rate(`lfu-decay:${HALF_LIFE}`), hitRate(replayBelady(trace, share, 'layer'), trace)];
    const away = found.map((value, i) => 100 * (value - published[i]!));
    worst = Math.max(worst, ...away.map(Math.abs));
    const cells = found.map((value, i) => `${value.toFixed(3)} (${published[i]!.toFixed(3)}, ${away[i]!.toFixed(2)})`);
    console.log(`${file.padEnd(26)} ${kept} of 128: LRU ${cells[0]}, decayed use ${cells[1]}, Belady ${cells[2]}`);
  }
}
console.log(`at most ${worst.toFixed(2)} points away`);
process.exitCode = worst < 1 ? 0 : 1;
