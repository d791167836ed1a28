/**
 * Which weights should the reuse model have, and what do they give on a trace that they have not seen?
 *
 *   npx tsx bench/reuse-weights.ts TRACES_FOLDER [--tokens 1000]
 *
 * Every trace runs through the engine's plans at five sizes; experts that are valued are drawn as examples, and what came of
 * them is read from the recording. Logistic regression over the examples of all traces, every trace and size weighing the same,
 * gives WEIGHTS and BY_STAY of src/experts/reuse/reuse-model.ts. Then each trace is replayed with weights fitted to the other five:
 * the figures of docs/residency.md. Deterministic; nothing is timed.
 */
import { parseArgs } from 'node:util';
import { FEATURES, type ReuseModel, type ReuseWeights, stayOver } from '../src/experts/reuse/reuse-model.js';
import { replayEngine } from '../src/replay/replay-engine.js';
import type { TraceToReplay } from '../src/replay/types.js';
import { baselines, cut, hitRate, openTraces } from './baselines.js';

const FITTED_SHARES = [0.03, 0.06, 0.125, 0.25, 0.5];
const SCORED_SHARES = [0.03, 0.06, 0.125, 0.25, 0.5, 0.75];
/** Tokens of a trace that examples are drawn from, and examples of a trace at one size. */
const FITTED_TOKENS = 600;
const EXAMPLES = 6000;
/** Pulls weights towards 0: as much as some twenty examples of each size do. */
const RIDGE = 18;
const ROUNDS = 12;

/** Rows of [outcome, features, features times the stay]. */
type Examples = readonly Float64Array[];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { tokens: { type: 'string', default: '1000' } },
});
const [folder] = positionals;
const tokensMax = Number(values.tokens);
if (folder === undefined || !Number.isInteger(tokensMax) || tokensMax < 1) {
  throw new Error(
    `Cannot fit: needed TRACES_FOLDER and at least 1 of --tokens, found ${positionals} and ${values.tokens}`,
  );
}
const traces = openTraces(folder, tokensMax);
const examples = traces.map((trace) => FITTED_SHARES.map((share) => draw(cut(trace, FITTED_TOKENS), share)));
print('all', fitWeights(examples.flat()));
const rows = traces.map((trace, left) => {
  const weights = fitWeights(examples.filter((_, index) => index !== left).flat());
  print(`without ${trace.name}`, weights);
  return SCORED_SHARES.map((share) => ({
    ...baselines(trace, share),
    trace: trace.name,
    shipped: hitRate(replayEngine(trace, share), trace),
    unseen: hitRate(replayEngine(trace, share, { weights }), trace),
  }));
});
const percent = (rate: number) => (100 * rate).toFixed(1).padStart(5);
for (const [size, share] of SCORED_SHARES.entries()) {
  console.log(`\n${100 * share} % resident: LRU of the tables, LRU best, decayed use best, unseen, shipped, Belady`);
  const own = rows.map((row) => row[size]!);
  for (const row of own) {
    const rates = [row.lruOfTables, row.lru, row.decayed, row.unseen, row.shipped, row.belady].map(percent);
    console.log(`${row.trace.padEnd(28)} ${rates.join('  ')}`);
  }
  const mean = (of: (row: (typeof own)[number]) => number) => own.reduce((sum, row) => sum + of(row), 0) / own.length;
  const points = [
    `LRU of the tables ${percent(mean((row) => row.unseen - row.lruOfTables))}`,
    `LRU best ${percent(mean((row) => row.unseen - row.lru))} (least ${percent(Math.min(...own.map((row) => row.unseen - row.lru)))})`,
    `decayed use best ${percent(mean((row) => row.unseen - row.decayed))}`,
    `gap closed ${percent(mean((row) => (row.unseen - row.lruOfTables) / (row.belady - row.lruOfTables)))} %`,
  ];
  console.log(`unseen over: ${points.join(', ')}`);
}

/** Examples of one trace at one size. The draw is a hash of where they are: the same in every run. */
function draw(trace: TraceToReplay, share: number): Examples {
  const { layers, topK, tokens, ids } = trace.recording;
  const nextUse = nextUses(trace);
  const found: Float64Array[] = [];
  let count = 0;
  let model: ReuseModel | null = null;
  const most = tokens * layers * Math.max(topK, share * trace.experts);
  const every = Math.max(1, Math.floor(most / EXAMPLES));
  replayEngine(trace, share, {
    onStart: (reuse) => {
      model = reuse;
      let token = 0;
      let layerBefore = 0;
      reuse.onValued = (key, features) => {
        const layer = Math.floor(key / trace.experts);
        if (layer < layerBefore) ++token;
        layerBefore = layer;
        // The end of a trace does not tell what would have been used after it.
        if (Math.imul(++count, 0x9e3779b1) >>> 0 >= 2 ** 32 / every || token > tokens - 3 * reuse.stay) return;
        const wait = nextUse[token * layers * trace.experts + key]! - token;
        const row = new Float64Array(1 + 2 * FEATURES);
        row[0] = wait > 0 ? Math.exp((1 - wait) / reuse.stay) : 0;
        for (let i = 0; i < FEATURES; ++i) {
          row[1 + i] = features[i]!;
          row[1 + FEATURES + i] = features[i]! * stayOver(reuse.stay);
        }
        found.push(row);
      };
    },
  });
  if (model === null || ids.length === 0) throw new Error(`Cannot draw examples from ${trace.name}`);
  return found;
}

/** By token and key: the token of the next use after it, 0 for none. Int32Array [tokens, layers, experts]. */
function nextUses(trace: TraceToReplay): Int32Array {
  const { layers, topK, tokens, ids } = trace.recording;
  const keys = layers * trace.experts;
  const next = new Int32Array(tokens * keys);
  const ahead = new Int32Array(keys);
  for (let token = tokens - 1; token >= 0; --token) {
    next.set(ahead, token * keys);
    for (let at = token * layers * topK; at < (token + 1) * layers * topK; ++at) {
      ahead[(Math.floor(at / topK) % layers) * trace.experts + ids[at]!] = token;
    }
  }
  return next;
}

/** Newton's method on the log loss. */
function fitWeights(sets: readonly Examples[]): ReuseWeights {
  const size = 2 * FEATURES;
  let weights = new Float64Array(size);
  for (let round = 0; round < ROUNDS; ++round) {
    const gradient = weights.map((weight, i) => -RIDGE * (i < FEATURES ? 1 : 3) * weight);
    const hessian = Array.from({ length: size }, (_, i) => {
      const row = new Float64Array(size);
      row[i] = RIDGE * (i < FEATURES ? 1 : 3);
      return row;
    });
    for (const set of sets) for (const row of set) addExample(row, EXAMPLES / set.length, weights, gradient, hessian);
    const step = solve(hessian, gradient);
    weights = weights.map((weight, i) => weight + step[i]!);
  }
  return { base: [...weights.subarray(0, FEATURES)], byStay: [...weights.subarray(FEATURES)] };
}

function addExample(
  row: Float64Array,
  mass: number,
  weights: Float64Array,
  gradient: Float64Array,
  hessian: readonly Float64Array[],
): void {
  let z = 0;
  for (let i = 0; i < weights.length; ++i) z += weights[i]! * row[1 + i]!;
  const chance = 1 / (1 + Math.exp(-z));
  for (let i = 0; i < weights.length; ++i) {
    gradient[i] = gradient[i]! + mass * (row[0]! - chance) * row[1 + i]!;
    const scaled = mass * chance * (1 - chance) * row[1 + i]!;
    const line = hessian[i]!;
    for (let j = 0; j < weights.length; ++j) line[j] = line[j]! + scaled * row[1 + j]!;
  }
}

/** Gauss and Jordan with pivots; `matrix` is used up. */
function solve(matrix: readonly Float64Array[], right: Float64Array): Float64Array {
  const rows = matrix.map((row, i) => Float64Array.of(...row, right[i]!));
  for (let column = 0; column < rows.length; ++column) {
    let best = column;
    for (let i = column; i < rows.length; ++i) {
      if (Math.abs(rows[i]![column]!) > Math.abs(rows[best]![column]!)) best = i;
    }
    const pivot = rows[best]!;
    rows[best] = rows[column]!;
    rows[column] = pivot;
    for (const [i, row] of rows.entries()) {
      if (i === column) continue;
      const factor = row[column]! / pivot[column]!;
      for (let j = column; j <= rows.length; ++j) row[j] = row[j]! - factor * pivot[j]!;
    }
  }
  return Float64Array.from(rows, (row, i) => row[rows.length]! / row[i]!);
}

function print(name: string, { base, byStay }: ReuseWeights): void {
  const line = (numbers: readonly number[]) => numbers.map((n) => n.toFixed(2)).join(', ');
  console.log(`${name}: [${line(base)}], by stay [${line(byStay)}]`);
}
