/** `moestro bench MODEL`: tokens per second, reads and memory, over random prompts. */
import { Command, Option } from 'commander';
import { engineConfig } from '../config.js';
import { startEngine } from '../engine/client.js';
import { MoestroError } from '../errors.js';
import { type BenchResult, runBench } from '../eval/bench.js';
import { ENGINE_SETTINGS } from '../settings/engine-settings.js';
import { PREFIX_SETTINGS } from '../settings/prefix-settings.js';
import { wholeNumber } from './numbers.js';
import { addSettings, configFileOf, givenSettings } from './options.js';
import { statusLine } from './status-line.js';

/** Answers are timed one by one, from their first token on: nobody queues, and nothing is kept. */
const SETTINGS = ENGINE_SETTINGS.filter((one) => one.key !== 'maxQueued' && !PREFIX_SETTINGS.includes(one));

type BenchOptions = Record<string, string> & { readonly json?: boolean };

export function benchCommand(): Command {
  const command = new Command('bench')
    .description('Measures tokens per second, stalls, bytes read and peak memory over prompts of random tokens.')
    .argument('<model>', 'a .moe directory')
    .option('--prompt-tokens <count>', 'tokens of each prompt', '128')
    .option('--new-tokens <count>', 'tokens of each answer', '64')
    .option('--streams <count>', 'answers at once', '1')
    .option('--repeat <count>', 'answers; figures are medians over them', '3')
    .option('--seed <number>', 'of the random prompts', '1')
    .option('--routing-trace <file>', 'route as in this recording, instead of by the router: for random weights')
    .addOption(
      new Option('--evict <rule>', 'who loses its slots: to compare the rule of the engine with')
        .choices(['default', 'lru'])
        .default('default'),
    )
    .option('--json', 'print one JSON object');
  addSettings(command, SETTINGS);
  command.addHelpText(
    'after',
    '\nMemory is divided as `moestro serve` would with the same flags; of more than one stream, for so many answers.\n' +
      '\nExamples:\n  moestro bench models/pocket.moe\n  moestro bench my-model.moe --budget 2GiB --prompt-tokens 512 --json',
  );
  return command.action(bench);
}

async function bench(modelPath: string, options: BenchOptions): Promise<void> {
  const count = (flag: string, text: string | undefined, least: number) =>
    wholeNumber(flag, text ?? '', least, 1 << 24);
  const promptTokens = count('--prompt-tokens', options.promptTokens, 1);
  const newTokens = count('--new-tokens', options.newTokens, 2);
  const streams = wholeNumber('--streams', options.streams ?? '', 1, 256);
  const repeats = count('--repeat', options.repeat, 1);
  const seed = count('--seed', options.seed, 0);
  const config = engineConfig(modelPath, givenSettings(options, SETTINGS), process.env, await configFileOf(options));
  const progress = statusLine();
  const client = await startEngine({
    ...config,
    // One answer is timed within the memory that a server would divide for all of its own: the same slots for experts.
    maxSequences: streams === 1 ? config.maxSequences : Math.max(config.maxSequences ?? 1, streams),
    prefix: null,
    routingTrace: options.routingTrace ?? null,
    evictsLru: options.evict === 'lru',
  });
  try {
    const { contextLength } = client.info;
    if (promptTokens + newTokens > contextLength) {
      throw new MoestroError(
        'INVALID_CONFIG',
        `Cannot bench ${promptTokens} + ${newTokens} tokens: a sequence holds ${contextLength}`,
        { needed: promptTokens + newTokens, found: contextLength },
      );
    }
    const result = await runBench(client, {
      promptTokens,
      newTokens,
      streams,
      repeats,
      seed,
      onProgress: progress.show,
    });
    progress.clear();
    process.stdout.write(options.json === true ? `${JSON.stringify(result)}\n` : table(result));
  } finally {
    await client.close();
  }
}

/** The same facts for people, with units. */
function table(result: BenchResult): string {
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(3)} GiB`;
  const rows: readonly (readonly [string, string])[] = [
    ['model', `${result.model}, level ${result.level}, ${result.mode}`],
    ['machine', `${result.threads} threads, ${result.isa}`],
    [
      'memory',
      `peak ${gib(result.peakRssBytes)} of ${gib(result.budgetBytes)}, divided for ${result.maxSequences} answers at once`,
    ],
    ['prefill', `${result.prefillTps} tok/s over ${result.promptTokens} tokens`],
    ['first token', `${result.ttftMs} ms`],
    [
      'decode',
      `${result.decodeTps} tok/s over ${result.newTokens} tokens${result.streams === 1 ? '' : ` of ${result.streams} streams`}`,
    ],
    ['longest gap', `${result.gapMs} ms between two tokens of a stream`],
    ['stalled', `${result.stallMs} ms per token`],
    ['prefetched', prefetched(result)],
    ['read', `${(result.bytesReadPerToken / 1e6).toFixed(2)} MB per token, hit rate ${result.hitRate}`],
  ];
  return rows.map(([name, value]) => `${name.padEnd(12)} ${value}\n`).join('');
}

function prefetched({ prefetch }: BenchResult): string {
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
  const { reads, bytes, usefulBytes, wastedBytes, offReason } = prefetch;
  if (reads === 0) return 'nothing';
  const figures = `${megabytes(bytes)} in ${reads} reads, ${megabytes(usefulBytes)} useful, ${megabytes(wastedBytes)} wasted`;
  return offReason === null ? figures : `${figures}; off: ${offReason}`;
}
