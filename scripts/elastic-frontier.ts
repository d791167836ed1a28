/**
 * The frontier of mode `elastic` under a budget: divergence from the full-precision model against what a token reads and
 * takes, beside a fixed level under LRU and mode `routed` in as many bytes. Run it after `npm run build`:
 *
 *     npx tsx scripts/elastic-frontier.ts MODEL.moe REFERENCE TEXT [--level 4] [--residency 0.25,0.125] [--chunks 12]
 *         [--prices 0.01,0.1,1] [--bits 2.25,2.5] [--disk-rate 200MB] [--svg FILE] [--json FILE]
 *
 * Residency is the share of all experts that would fit at --level; every row has the slots for as many bytes. Texts are
 * read a token at a time, as answers are written: a chunk would share its reads. Prices are those of the governor, held
 * fixed; "target" rows let it hold a rate. With --disk-rate reads are throttled (root), so that the disk of a large model
 * stands behind a small one whose divergence can be measured.
 */
import { appendFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type DiskCgroup, throttleReads } from '../bench/disk-cgroup.js';
import { parseBytes } from '../src/bytes.js';
import { engineConfig } from '../src/config.js';
import { startEngine } from '../src/engine/client.js';
import type { EngineMetrics } from '../src/engine/engine-metrics.js';
import type { EngineConfig } from '../src/engine/types.js';
import { engineEvaluator } from '../src/eval/evaluator.js';
import { ReferenceReader } from '../src/eval/reference-file.js';
import { runEval } from '../src/eval/run-eval.js';
import { openMoe } from '../src/model/read-moe.js';
import { loadTextModel } from '../src/text/text-model.js';
import { frontierSvg } from './frontier-svg.js';
import { measure } from './measure-levels.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    level: { type: 'string', default: '4' },
    residency: { type: 'string', default: '0.25,0.125' },
    chunks: { type: 'string', default: '12' },
    context: { type: 'string', default: '256' },
    prices: { type: 'string', default: '0.003,0.03,0.1,0.3,1' },
    bits: { type: 'string', default: '2.25,2.5' },
    targets: { type: 'string', default: '' },
    'disk-rate': { type: 'string' },
    svg: { type: 'string' },
    json: { type: 'string' },
  },
});
const [modelPath, sourcePath, textPath] = positionals;
if (modelPath === undefined || sourcePath === undefined || textPath === undefined) {
  throw new Error('needed MODEL.moe REFERENCE TEXT');
}
const numbers = (text: string): number[] =>
  text
    .split(',')
    .filter((item) => item !== '')
    .map(Number);

export interface FrontierRow {
  readonly name: string;
  readonly residency: number;
  readonly bytesPerToken: number;
  readonly tokensPerSecond: number;
  readonly kl: number;
  readonly meanBits: number;
}

const prose = readFileSync(textPath, 'utf8');
const chunks = Number(values.chunks);
const context = Number(values.context);
const file = join(tmpdir(), `moestro-elastic-${process.pid}.ref`);
const { manifest } = await openMoe(modelPath);
const { geometry, architecture, generation } = manifest;
const text = await loadTextModel(modelPath, generation);
const expertCount = architecture.expertCount * architecture.layerKinds.filter((kind) => kind === 'moe').length;
const expertBytes = (level: number): number => level * geometry.bitBytes + geometry.scaleBytes;
const full = Number(values.level);

async function row(name: string, residency: number, level: number, more: Partial<EngineConfig>): Promise<FrontierRow> {
  const bytes = residency * expertCount * expertBytes(full);
  const config: EngineConfig = {
    ...engineConfig(modelPath!, { level: String(level), budget: '1GiB', chunk: '1', maxSequences: '1' }, {}),
    maxResidentExperts: Math.floor(bytes / expertBytes(level)),
    ...more,
  };
  const client = await startEngine(config);
  try {
    const evaluator = engineEvaluator(client, 1);
    // The slots fill, and the governor finds its price.
    await evaluator.logits(text.encode(prose.slice(0, 1200)).slice(0, context), context - 2, context - 1);
    const before = await client.metrics();
    const result = await runEval(
      { evaluator, text, bos: generation.addBos ? generation.bosTokenId : null },
      {
        questions: null,
        prose,
        context,
        chunks,
        reference,
        against: null,
        saveReference: null,
        onProgress: () => {},
      },
    );
    return { name, residency, kl: result.kl!, ...figures(before, await client.metrics()) };
  } finally {
    await client.close();
  }
}

function figures(before: EngineMetrics, after: EngineMetrics) {
  const of = (read: (metrics: EngineMetrics) => number): number => read(after) - read(before);
  const tokens = of((m) => m.tokensPrefilled + m.tokensDecoded);
  return {
    bytesPerToken: of((m) => m.bytesRead) / tokens,
    tokensPerSecond: (1000 * tokens) / of((m) => m.prefillMs + m.decodeMs),
    meanBits: of((m) => m.pairBits) / of((m) => m.pairs),
  };
}

const rows: FrontierRow[] = [];
function show(found: FrontierRow): void {
  rows.push(found);
  const { name, residency, bytesPerToken, tokensPerSecond, kl, meanBits } = found;
  process.stdout.write(
    `${name.padEnd(22)} ${(100 * residency).toFixed(1).padStart(5)} %  ${(bytesPerToken / 1e3).toFixed(1).padStart(8)} kB/token  ` +
      `${tokensPerSecond.toFixed(1).padStart(7)} tok/s  KL ${kl.toFixed(5)}  ${meanBits.toFixed(3)} bits\n`,
  );
  if (values.json !== undefined) appendFileSync(values.json, `${JSON.stringify(found)}\n`);
}

let disk: DiskCgroup | undefined;
let reference: ReferenceReader;
try {
  await measure(sourcePath, {}, { prose, questions: null, context, chunks }, file);
  reference = new ReferenceReader(file);
  const rate = values['disk-rate'];
  if (rate !== undefined) disk = throttleReads(join(modelPath, 'experts.bin'), parseBytes(rate, '--disk-rate', 0));
  for (const residency of numbers(values.residency)) {
    show(await row('level 3, LRU', residency, 3, { evictsLru: true }));
    show(await row(`level ${full}, LRU`, residency, full, { evictsLru: true }));
    for (const bits of [2.5, 3]) {
      show(await row(`routed ${bits}`, residency, full, { mode: 'routed', meanBits: bits }));
    }
    for (const bits of numbers(values.bits)) {
      for (const elasticPrice of numbers(values.prices)) {
        const name = `elastic ${bits}, price ${elasticPrice}`;
        show(await row(name, residency, full, { mode: 'elastic', meanBits: bits, elasticPrice }));
      }
    }
    for (const targetTps of numbers(values.targets)) {
      show(await row(`elastic, target ${targetTps}`, residency, full, { mode: 'elastic', targetTps }));
    }
    show(await row('elastic', residency, full, { mode: 'elastic' }));
  }
  reference.close();
  if (values.svg !== undefined) writeFileSync(values.svg, frontierSvg(rows));
} finally {
  disk?.remove();
  rmSync(file, { force: true });
}
