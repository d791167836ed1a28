/**
 * What nesting costs: the divergence of every level of a nested model beside that of the same search for one level
 * alone. Experts alone are quantised; all else, and all arithmetic, is float32. As Markdown, after `npm run build`:
 *
 *     npm run eval:nesting -- SOURCE CALIBRATION_TEXT TEXT QUESTIONS.jsonl [--chunks 60] [--questions 400] [--nested-only]
 *
 * `--nested-only` leaves the single levels out. Models are converted into a temporary directory and removed.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startEngine } from '../src/engine/client.js';
import { rowOf } from '../src/eval/distribution.js';
import { DivergenceMeter } from '../src/eval/divergence.js';
import { chunkTokens, scoredRows } from '../src/eval/perplexity.js';
import { readQuestions } from '../src/eval/questions.js';
import { ReferencePool } from '../src/eval/reference-pool.js';
import { loadReferenceWeights, type ReferenceExpert, type ReferenceWeights } from '../src/eval/reference-weights.js';
import { convertCalibrated } from '../src/model/calibrate.js';
import { openSource } from '../src/model/import/index.js';
import { openMoe } from '../src/model/read-moe.js';
import { type Level, loadAddon } from '../src/native/binding.js';
import { loadTextModel } from '../src/text/text-model.js';

const CONTEXT = 256;
const THREADS = 2;

interface Sequence {
  readonly ids: readonly number[];
  readonly begin: number;
  readonly end: number;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    chunks: { type: 'string', default: '60' },
    questions: { type: 'string', default: '400' },
    'nested-only': { type: 'boolean', default: false },
  },
});
const [sourcePath, calibrationPath, textPath, questionsPath] = positionals;
if (
  sourcePath === undefined ||
  calibrationPath === undefined ||
  textPath === undefined ||
  questionsPath === undefined
) {
  throw new Error('needed SOURCE CALIBRATION_TEXT TEXT QUESTIONS.jsonl');
}
const directory = mkdtempSync(join(tmpdir(), 'moestro-nesting-'));

async function converted(onlyLevel?: 2 | 3 | 4): Promise<string> {
  const out = join(directory, `${onlyLevel ?? 'nested'}.moe`);
  await convertCalibrated({
    source: sourcePath!,
    out,
    bits: onlyLevel === undefined ? 8 : 4,
    textPath: calibrationPath!,
    startEngine,
    loadTextModel,
    ...(onlyLevel === undefined ? {} : { onlyLevel }),
  });
  return out;
}

/** The source's weights with the experts of a model at one level. */
async function withExperts(source: ReferenceWeights, modelPath: string, level: Level): Promise<ReferenceWeights> {
  const { manifest } = await openMoe(modelPath);
  const { geometry, tables } = manifest;
  const { hiddenSize, expertSize } = source.architecture;
  const file = await open(join(modelPath, 'experts.bin'));
  const matrix = () => new Float32Array(hiddenSize * expertSize);
  const shared = (matrix: Float32Array): Float32Array => {
    const out = new Float32Array(new SharedArrayBuffer(matrix.byteLength));
    out.set(matrix);
    return out;
  };
  try {
    const record = new Uint8Array(geometry.recordBytes);
    const experts: ReferenceExpert[][] = [];
    let position = 0;
    for (const layer of source.experts) {
      const own: ReferenceExpert[] = [];
      for (let index = 0; index < layer.length; index++) {
        await file.read(record, 0, record.length, position);
        position += record.length;
        const expert = { gate: matrix(), up: matrix(), down: matrix() };
        loadAddon().dequantiseExpert(
          record,
          hiddenSize,
          expertSize,
          tables,
          level,
          expert.gate,
          expert.up,
          expert.down,
        );
        own.push({ gate: shared(expert.gate), up: shared(expert.up), down: shared(expert.down) });
      }
      experts.push(own);
    }
    return { ...source, experts };
  } finally {
    await file.close();
  }
}

const logitsOf = async (weights: ReferenceWeights, sequences: readonly Sequence[]): Promise<Float32Array[]> => {
  const pool = new ReferencePool(weights, THREADS);
  try {
    return await Promise.all(sequences.map(({ ids, begin, end }) => pool.logits(ids.slice(0, end), begin)));
  } finally {
    await pool.close();
  }
};

try {
  const nested = await converted();
  const text = await loadTextModel(nested);
  const { begin, end } = scoredRows(CONTEXT);
  const ids = text.encode(readFileSync(textPath, 'utf8'), { special: false, addBos: false });
  const prose = chunkTokens(ids, CONTEXT, Number(values.chunks), null).map((chunk) => ({ ids: chunk, begin, end }));
  const all = readQuestions(questionsPath);
  const every = Math.max(1, Math.ceil(all.length / Number(values.questions)));
  const answers = all
    .filter((_, index) => index % every === 0)
    .map(({ question, answer }) => {
      const prompt = text.encodeChat([{ role: 'user', content: question }]);
      const whole = [...prompt, ...text.encode(answer, { special: false, addBos: false }), text.eosTokenIds[0]!];
      return { ids: whole, begin: prompt.length - 1, end: whole.length - 1 };
    });

  const source = await openSource(sourcePath);
  const weights = await loadReferenceWeights(source);
  await source.close();
  const { vocabSize } = weights.architecture;
  const sets = [prose, answers];
  const references: Float32Array[][] = [];
  for (const set of sets) references.push(await logitsOf(weights, set));
  const divergences = async (modelPath: string, level: Level): Promise<number[]> => {
    const changed = await withExperts(weights, modelPath, level);
    const out: number[] = [];
    for (const [index, set] of sets.entries()) {
      const meter = new DivergenceMeter();
      for (const [s, logits] of (await logitsOf(changed, set)).entries()) {
        const reference = references[index]![s]!;
        for (let row = 0; row < logits.length / vocabSize; row++)
          meter.add(rowOf(reference, row, vocabSize), rowOf(logits, row, vocabSize));
      }
      out.push(meter.result()!.kl);
    }
    return out;
  };

  const row = (...cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |\n`;
  process.stdout.write(row('level', 'nested, prose', 'alone', 'ratio', 'nested, answers', 'alone', 'ratio'));
  process.stdout.write(row(...Array.from({ length: 7 }, () => '---')));
  for (const level of [8, 4, 3, 2] as const) {
    const own = await divergences(nested, level);
    const isCompared = level !== 8 && !values['nested-only'];
    const alone = isCompared ? await divergences(await converted(level), level) : [];
    const cells = own.flatMap((kl, index) => {
      const other = alone[index];
      return [kl.toPrecision(3), other?.toPrecision(3) ?? '', other === undefined ? '' : (kl / other).toFixed(2)];
    });
    process.stdout.write(row(level, ...cells));
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
