/**
 * What every level of a model keeps of its source: the tables of models/pocket.moe.md, as Markdown. Run it after
 * `npm run build`:
 *
 *     npm run eval:levels -- MODEL.moe REFERENCE TEXT QUESTIONS.jsonl [--chunks 60]
 *
 * REFERENCE is the source that MODEL was converted from: it answers and predicts in float32 for comparison.
 */
import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readQuestions } from '../src/eval/questions.js';
import { ReferenceReader } from '../src/eval/reference-file.js';
import type { PlaneGeometry } from '../src/model/manifest.js';
import { openMoe } from '../src/model/read-moe.js';
import { measure } from './measure-levels.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { chunks: { type: 'string', default: '60' }, context: { type: 'string', default: '256' } },
});
const [modelPath, sourcePath, textPath, questionsPath] = positionals;
if (modelPath === undefined || sourcePath === undefined || textPath === undefined || questionsPath === undefined)
  throw new Error('needed MODEL.moe REFERENCE TEXT QUESTIONS.jsonl');
const prose = readFileSync(textPath, 'utf8');
const questions = readQuestions(questionsPath);
const file = join(tmpdir(), `moestro-levels-${process.pid}.ref`);

const measured = { prose, questions, context: Number(values.context), chunks: Number(values.chunks) };

const row = (...cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |\n`;

/** Bytes of an expert that a level reads, scales included. */
const bytesAt = ({ scaleBytes, bitBytes }: PlaneGeometry, level: number): number => scaleBytes + level * bitBytes;

try {
  const { manifest } = await openMoe(modelPath);
  const { geometry, architecture } = manifest;
  const weights = 3 * architecture.hiddenSize * architecture.expertSize;
  const results = [{ name: 'source, float32', bytes: 0, result: await measure(sourcePath, {}, measured, file) }];
  const reference = new ReferenceReader(file);
  try {
    for (const level of [...manifest.levels].reverse()) {
      const result = await measure(modelPath, { level: String(level), mode: 'exact' }, measured, reference);
      results.push({ name: String(level), bytes: bytesAt(geometry, level), result });
    }
  } finally {
    reference.close();
  }
  const shown = (part: number | undefined): string => (part === undefined ? '' : `${part.toFixed(1)} %`);
  process.stdout.write(
    row('level', 'bytes an expert', 'bits a weight', 'questions right', 'perplexity', 'mean KL', 'same top-1'),
  );
  process.stdout.write(row('---', '---', '---', '---', '---', '---', '---'));
  for (const { name, bytes, result } of results) {
    const size = bytes === 0 ? ['', ''] : [bytes, ((8 * bytes) / weights).toFixed(2)];
    const kl = result.kl?.toPrecision(3) ?? '';
    process.stdout.write(
      row(name, ...size, `${result.accuracy!.all} %`, result.perplexity!.toFixed(3), kl, shown(result.top1)),
    );
  }
  const domains = Object.keys(results[0]!.result.accuracy!).filter((domain) => domain !== 'all');
  process.stdout.write(`\n${row('right, %', ...domains)}${row('---', ...domains.map(() => '---'))}`);
  for (const { name, result } of results)
    process.stdout.write(row(name, ...domains.map((domain) => result.accuracy![domain]!)));
} finally {
  rmSync(file, { force: true });
}
