/**
 * Writes the golden files and prints how far the reference path is from llama.cpp. Run by hand, see oracle.ts:
 *   ORACLE_DIRECTORY=FOLDER npx tsx test/golden/make-logits.ts POCKET_DIRECTORY
 *
 * Figures cover every position computed; the files keep a part of them. The bars: top-1 on 99.5 %, mean KL 1e-4 nats.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rowOf } from '../../src/eval/distribution.js';
import { DivergenceMeter } from '../../src/eval/divergence.js';
import { ReferenceSequence } from '../../src/eval/reference.js';
import { loadReferenceWeights } from '../../src/eval/reference-weights.js';
import { openSource } from '../../src/model/import/index.js';
import { writeTinyGguf } from '../helpers/tiny-gguf.js';
import { TINY_FAMILIES } from '../helpers/tiny-models.js';
import { type GoldenSequence, goldenBytes, goldenSequence } from './golden-file.js';
import { openOracle } from './oracle.js';
import { goldenTinyModel, tinySequences } from './golden-tiny.js';

const KEPT = 64;
const POCKET_CONTEXT = 256;
/** 4,096 positions of prose and 1,024 of questions are compared, one chunk of each is kept. */
const POCKET_PROSE = 16;
const POCKET_QUESTIONS = 4;

interface Job {
  readonly name: string;
  readonly gguf: string;
  readonly sequences: readonly (readonly number[])[];
  /** Indices of the sequences that go into the golden file. */
  readonly keep: readonly number[];
}

async function main(): Promise<void> {
  const [pocket] = process.argv.slice(2);
  if (pocket === undefined) throw new Error('needed the folder of the pocket model');
  const scratch = mkdtempSync(join(tmpdir(), 'moestro-golden-'));
  try {
    for (const family of TINY_FAMILIES) {
      const model = goldenTinyModel(family);
      const gguf = join(scratch, `${family}.gguf`);
      writeTinyGguf(model, gguf, { dtype: 'F32' });
      const sequences = tinySequences(model.architecture.vocabSize);
      await compare({ name: `tiny-${family}`, gguf, sequences, keep: [0] });
    }
    const gguf = join(pocket, 'pocket-f16.gguf');
    const sequences = await pocketSequences(pocket, gguf);
    await compare({ name: 'pocket', gguf, sequences, keep: [0, POCKET_PROSE] });
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** Chunks of the prose, then of questions and answers as the model was trained on. */
async function pocketSequences(pocket: string, gguf: string): Promise<number[][]> {
  const oracle = await openOracle(gguf, POCKET_CONTEXT, 4096);
  const prose = oracle.tokenize(readFileSync(join(pocket, 'prose_test.txt'), 'utf8').slice(0, 40_000));
  const rows = readFileSync(join(pocket, 'eval.jsonl'), 'utf8').trim().split('\n');
  const turns: number[] = [];
  const [start, end] = [4094, 4095];
  // Every 17th question: some of each domain.
  for (let index = 0; turns.length < POCKET_QUESTIONS * POCKET_CONTEXT; index = (index + 17) % rows.length) {
    const { question, answer } = JSON.parse(rows[index]!);
    turns.push(start, ...oracle.tokenize(`user\n${question}`), end, ...oracle.tokenize('\n'));
    turns.push(start, ...oracle.tokenize(`assistant\n${answer}`), end, ...oracle.tokenize('\n'));
  }
  await oracle.close();
  const chunks = (ids: readonly number[], count: number) =>
    Array.from({ length: count }, (_, i) => ids.slice(i * POCKET_CONTEXT, (i + 1) * POCKET_CONTEXT));
  return [...chunks(prose, POCKET_PROSE), ...chunks(turns, POCKET_QUESTIONS)];
}

async function compare(job: Job): Promise<void> {
  const source = await openSource(job.gguf);
  const weights = await loadReferenceWeights(source);
  await source.close();
  const { vocabSize } = weights.architecture;
  const contextSize = Math.max(...job.sequences.map((ids) => ids.length));
  const oracle = await openOracle(job.gguf, contextSize, vocabSize);
  const meter = new DivergenceMeter();
  const kept: GoldenSequence[] = [];
  for (const [index, ids] of job.sequences.entries()) {
    const golden = await oracle.logits(ids);
    const own = new ReferenceSequence(weights, ids.length).append(ids);
    for (let row = 0; row < ids.length; ++row) meter.add(rowOf(golden, row, vocabSize), rowOf(own, row, vocabSize));
    if (job.keep.includes(index)) kept.push(goldenSequence(ids, golden, KEPT));
  }
  await oracle.close();
  const { kl, top1, positions } = meter.result()!;
  process.stdout.write(
    `${job.name}: ${positions} positions, top-1 ${top1.toFixed(3)} %, mean KL ${kl.toExponential(3)} nats\n`,
  );
  const path = fileURLToPath(new URL(`./${job.name}.golden`, import.meta.url));
  writeFileSync(path, goldenBytes({ vocabSize, kept: KEPT, sequences: kept }));
}

await main();
