/**
 * The frontier of mode `routed`: divergence from the full-precision model against mean bits, beside the fixed levels and
 * the line that joins them. Run it after `npm run build`:
 *
 *     npx tsx scripts/routed-frontier.ts MODEL.moe REFERENCE TEXT [--chunks 60] [--bits 2.5,3,3.5]
 *
 * REFERENCE is the source that MODEL was converted from, in full precision; its distributions are computed once.
 */
import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ReferenceReader } from '../src/eval/reference-file.js';
import { openMoe } from '../src/model/read-moe.js';
import { measure } from './measure-levels.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    chunks: { type: 'string', default: '60' },
    bits: { type: 'string', default: '2.25,2.5,2.75,3,3.25,3.5,3.75,4,5,6' },
    context: { type: 'string', default: '256' },
  },
});
const [modelPath, sourcePath, textPath] = positionals;
if (modelPath === undefined || sourcePath === undefined || textPath === undefined) {
  throw new Error('needed MODEL.moe REFERENCE TEXT');
}
const prose = readFileSync(textPath, 'utf8');
const file = join(tmpdir(), `moestro-frontier-${process.pid}.ref`);

const measured = { prose, questions: null, context: Number(values.context), chunks: Number(values.chunks) };

const show = (name: string, bits: number, kl: number, line: number | null): void => {
  const share = line === null ? '' : `${(kl / line).toFixed(2)} x the line (${line.toFixed(5)})`;
  process.stdout.write(`${name.padEnd(12)} ${bits.toFixed(3)} bits  KL ${kl.toFixed(5)}  ${share}\n`);
};

try {
  await measure(sourcePath, {}, measured, file);
  const reference = new ReferenceReader(file);
  try {
    const fixed: { readonly bits: number; readonly kl: number }[] = [];
    for (const level of (await openMoe(modelPath)).manifest.levels) {
      const { kl } = await measure(modelPath, { level: String(level), mode: 'exact' }, measured, reference);
      fixed.push({ bits: level, kl: kl! });
      show(`level ${level}`, level, kl!, null);
    }
    for (const asked of values.bits.split(',')) {
      const { kl, meanBits } = await measure(modelPath, { mode: 'routed', meanBits: asked }, measured, reference);
      const above = Math.max(
        1,
        fixed.findIndex(({ bits }) => bits >= meanBits!),
      );
      const [a, b] = [fixed[above - 1]!, fixed[above]!];
      const line = a.kl + ((b.kl - a.kl) * (meanBits! - a.bits)) / (b.bits - a.bits);
      show(`routed ${asked}`, meanBits!, kl!, line);
    }
  } finally {
    reference.close();
  }
} finally {
  rmSync(file, { force: true });
}
