/** `moestro eval MODEL`: perplexity on a text, accuracy on questions, distance to another model or a saved reference. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { engineConfig } from '../config.js';
import { MoestroError } from '../errors.js';
import { openEvaluated } from '../eval/open-evaluated.js';
import { readQuestions } from '../eval/questions.js';
import { ReferenceReader } from '../eval/reference-file.js';
import { type EvalResult, runEval } from '../eval/run-eval.js';
import { ENGINE_SETTINGS } from '../settings/engine-settings.js';
import { PREFIX_SETTINGS } from '../settings/prefix-settings.js';
import { wholeNumber } from './numbers.js';
import { addSettings, configFileOf, givenSettings } from './options.js';
import { statusLine } from './status-line.js';

/** `--context` is the length of a chunk here; how long a sequence the engine holds follows from it. Nobody queues. */
const SETTINGS = ENGINE_SETTINGS.filter(
  (one) => !['context', 'maxQueued', 'gear', 'tokenGap'].includes(one.key) && !PREFIX_SETTINGS.includes(one),
);

type EvalOptions = Record<string, string> & { readonly json?: boolean };

export function evalCommand(): Command {
  const command = new Command('eval')
    .description(
      'Measures a model: a .moe directory as it is served, or a Hugging Face directory or GGUF in plain float32.',
    )
    .argument('<model>', 'a .moe directory, a Hugging Face directory or a .gguf file')
    .option('--questions <file>', 'JSON lines of {domain, question, answer}: percent answered exactly')
    .option('--text <file>', 'perplexity on this text, counted as llama.cpp does')
    .option('--context <tokens>', 'tokens of a chunk of the text', '256')
    .option('--chunks <count>', 'chunks at most (default: all)')
    .option('--reference <file>', 'KL divergence and top-1 agreement with a reference saved before')
    .option('--save-reference <file>', 'save the distributions over the text for --reference')
    .option('--against <model>', 'KL divergence and top-1 agreement with another model over the text')
    .option('--against-level <bits>', 'the level of --against (default: its own)')
    .option('--json', 'print one JSON object');
  addSettings(command, SETTINGS);
  command.addHelpText(
    'after',
    '\nExamples:\n  moestro eval models/pocket.moe --questions eval.jsonl\n' +
      '  moestro eval models/pocket.moe --level 4 --text prose.txt --chunks 20 --against models/pocket.moe --against-level 8',
  );
  return command.action(evaluate);
}

async function evaluate(modelPath: string, options: EvalOptions): Promise<void> {
  const { questions, text, reference, against, saveReference, chunks, againstLevel } = options;
  if (questions === undefined && text === undefined && reference === undefined) {
    throw new MoestroError('INVALID_CONFIG', 'Cannot evaluate: needed --questions, --text or --reference');
  }
  if ((against ?? saveReference) !== undefined && text === undefined && reference === undefined) {
    throw new MoestroError('INVALID_CONFIG', 'Cannot compare or save distributions: needed --text');
  }
  const progress = statusLine();
  const context = wholeNumber('--context', options.context ?? '256', 4, 1 << 20);
  const limit = chunks === undefined ? null : wholeNumber('--chunks', chunks, 1, 1 << 30);
  const asked = questions === undefined ? null : readQuestions(questions);
  const prose = text === undefined ? null : readText(text);
  const saved = reference === undefined ? null : openReference(reference);
  const file = await configFileOf(options);
  const config = engineConfig(modelPath, givenSettings(options, SETTINGS), process.env, file);
  const model = await openEvaluated(config, progress.show);
  try {
    const other =
      against === undefined
        ? null
        : await openEvaluated(
            engineConfig(
              against,
              { ...givenSettings(options, SETTINGS), mode: 'exact', level: againstLevel ?? 'auto' },
              process.env,
              file,
            ),
            progress.show,
          );
    try {
      const result = await runEval(model, {
        questions: asked,
        prose,
        context,
        chunks: limit,
        reference: saved,
        against: other?.evaluator ?? null,
        saveReference: saveReference ?? null,
        onProgress: progress.show,
      });
      progress.clear();
      process.stdout.write(options.json === true ? `${JSON.stringify(result)}\n` : table(result));
    } finally {
      await other?.evaluator.close();
    }
  } finally {
    saved?.close();
    await model.evaluator.close();
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new MoestroError('INVALID_CONFIG', `Cannot read "${path}": ${(cause as Error).message}`, { path }, cause);
  }
}

function openReference(path: string): ReferenceReader {
  try {
    return new ReferenceReader(path);
  } catch (cause) {
    if (cause instanceof MoestroError) throw cause;
    throw new MoestroError('INVALID_CONFIG', `Cannot open "${path}": ${(cause as Error).message}`, { path }, cause);
  }
}

/** The same facts for people, one a line. */
function table(result: EvalResult): string {
  const rows: [string, string][] = [
    ['model', result.model],
    ['level', String(result.level)],
    ['mode', result.mode],
  ];
  if (result.meanBits !== undefined) rows.push(['mean bits', result.meanBits.toFixed(3)]);
  if (result.perplexity !== undefined) rows.push(['perplexity', result.perplexity.toFixed(3)]);
  if (result.kl !== undefined) rows.push(['mean KL, nats', result.kl.toExponential(3)]);
  if (result.top1 !== undefined) rows.push(['same top-1', `${result.top1.toFixed(2)} %`]);
  if (result.positions !== undefined) rows.push(['positions', String(result.positions)]);
  for (const [domain, percent] of Object.entries(result.accuracy ?? {})) {
    rows.push([domain === 'all' ? 'right, all' : `right, ${domain}`, `${percent.toFixed(2)} %`]);
  }
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join('');
}
