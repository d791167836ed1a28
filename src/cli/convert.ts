/** `moestro convert SOURCE OUT`: a Hugging Face directory or a GGUF file becomes a `.moe` directory. */
import { Command, InvalidArgumentError, Option } from 'commander';
import { formatBytes } from '../bytes.js';
import { convert } from '../model/convert.js';
import type { ConvertProgress } from '../model/convert-progress.js';
import { openMoe } from '../model/read-moe.js';
import { type ProgressLine, progressLine } from './progress-line.js';

interface ConvertFlags {
  readonly bits?: '4' | '8';
  readonly denseBits?: '4' | '6' | '8';
  readonly calibrate?: string;
  readonly threads?: number;
  readonly force?: boolean;
}

export function convertCommand(): Command {
  return new Command('convert')
    .description(
      'Makes a .moe directory from a Hugging Face directory (safetensors) or a GGUF file. An interrupted conversion ' +
        'goes on where it stopped when the same command is given again.',
    )
    .argument('<source>', 'a directory with config.json and safetensors, or a .gguf file')
    .argument('<out>', 'the .moe directory to write')
    .addOption(
      new Option(
        '--bits <bits>',
        'bits stored per weight: 4 (levels 2, 3, 4) or 8 (also level 8); by the size of the model if not given',
      ).choices(['4', '8']),
    )
    .addOption(
      new Option(
        '--dense-bits <bits>',
        'bits per weight of what every token uses (attention, shared expert, embedding and head): 4, 6 or 8 (default: ' +
          '8); with 4 the embedding and the head take 6',
      ).choices(['4', '6', '8']),
    )
    .option('--calibrate <text>', 'a text file; weights that it uses most are kept most exact (converts twice)')
    .option('--threads <count>', 'threads that quantise (default: one per processor)', threadCount)
    .option('--force', 'replace OUT when it exists')
    .addHelpText(
      'after',
      '\nExamples:\n  moestro convert ./OLMoE-1B-7B olmoe.moe\n  moestro convert qwen3-30b-a3b-q8_0.gguf qwen3.moe --bits 4 --calibrate sample.txt',
    )
    .action(run);
}

async function run(source: string, out: string, flags: ConvertFlags): Promise<void> {
  // A bar for each stretch of work: two at once would write over each other.
  let bar: { readonly unit: string; readonly line: ProgressLine } | undefined;
  const barOf = (unit: string): ProgressLine => {
    if (bar?.unit !== unit) {
      bar?.line.stop();
      bar = { unit, line: progressLine(process.stderr, unit) };
    }
    return bar.line;
  };
  const onProgress = ({ phase, doneWeights, totalWeights, resumedWeights }: ConvertProgress): void =>
    barOf('weights').update(phase === 'dense' ? 'dense weights' : 'experts', doneWeights, totalWeights, resumedWeights);
  const options = {
    source,
    out,
    onProgress,
    ...(flags.bits === undefined ? {} : { bits: Number(flags.bits) as 4 | 8 }),
    ...(flags.denseBits === undefined ? {} : { denseBits: Number(flags.denseBits) as 4 | 6 | 8 }),
    ...(flags.threads === undefined ? {} : { threads: flags.threads }),
    ...(flags.force === undefined ? {} : { force: flags.force }),
  };
  try {
    if (flags.calibrate === undefined) await convert(options);
    else {
      const onTokens = (done: number, total: number): void => barOf('tokens').update('calibration', done, total);
      // Loaded here: a conversion without calibration has no use for an engine.
      const [{ convertCalibrated }, { startEngine }, { loadTextModel }] = await Promise.all([
        import('../model/calibrate.js'),
        import('../engine/client.js'),
        import('../text/text-model.js'),
      ]);
      await convertCalibrated({ ...options, textPath: flags.calibrate, onTokens, startEngine, loadTextModel });
      const { calibratePrecision } = await import('./calibrate.js');
      await calibratePrecision(out, flags.calibrate, (done, total) => barOf('tokens').update('precision', done, total));
    }
  } finally {
    bar?.line.stop();
  }
  const { manifest } = await openMoe(out);
  const bytes = manifest.dense.bytes + manifest.experts.bytes;
  process.stdout.write(
    `${out}: ${manifest.name}, ${formatBytes(bytes)}, levels ${manifest.levels.join(', ')}\n` +
      `try it: moestro chat ${out}\n`,
  );
}

function threadCount(text: string): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > 256) throw new InvalidArgumentError('needed a number from 1 to 256.');
  return count;
}
