/** `moestro replay TRACE...`: recorded routing through residency policies and a model of the disk. */
import { writeFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { engineConfig } from '../config.js';
import { planMemory, runtimeBytes } from '../engine/memory-plan.js';
import { MoestroError } from '../errors.js';
import { openMoe } from '../model/read-moe.js';
import { openTrace } from '../replay/open-trace.js';
import { plotReplay } from '../replay/plot.js';
import { POLICY_NAMES, parsePolicy } from '../replay/policies.js';
import { AS_RECORDED, runReplay } from '../replay/run-replay.js';
import {
  type Counting,
  type MachineModel,
  REPLAY_PREFETCH,
  type ReplayPrefetch,
  type ReplayRow,
  type Scope,
} from '../replay/types.js';
import { memoryFloor } from './inspect.js';
import { measureMachine } from './measure-machine.js';
import { decimalNumber, wholeNumber } from './numbers.js';
import { statusLine } from './status-line.js';

const collect = (value: string, earlier: readonly string[] = []): readonly string[] => [
  ...earlier,
  ...value.split(',').map((item) => item.trim()),
];

interface ReplayOptions {
  readonly policy?: readonly string[];
  readonly residency?: readonly string[];
  readonly prefetch?: readonly string[];
  readonly layers?: string;
  readonly experts?: string;
  readonly topK?: string;
  readonly scope: Scope | 'auto';
  readonly counting: Counting | 'auto';
  readonly expertBytes: string;
  readonly diskRate: string;
  readonly diskLatencyMs: string;
  readonly queueDepth: string;
  readonly layerMs: string;
  readonly expertMs: string;
  readonly measure?: string;
  readonly svg?: string;
  readonly json?: boolean;
}

export function replayCommand(): Command {
  return new Command('replay')
    .description('Runs recorded routing through residency policies and a model of the disk: hit rates, bytes, stalls.')
    .argument(
      '<trace...>',
      'recordings: .jsonl, .csv, .u8 (raw bytes [token][layer][rank]) or .moetrace (--record-trace)',
    )
    .option(
      '--policy <names>',
      `${POLICY_NAMES.join(', ')}; lfu-decay:32 for another half-life in tokens; repeatable (default: lru, lfu-decay, default, belady)`,
      collect,
    )
    .option(
      '--residency <percents>',
      'experts that are resident, in percent, 12.5 or 12.5%, or "recorded" for those of a .moetrace; repeatable (default: 12.5, 25, 50)',
      collect,
    )
    .option(
      '--prefetch <names>',
      'reads on a guess beside "default": off, statistics of which experts follow which, router where a .moetrace holds what the ' +
        'next one said early, auto to stop while they do not pay; repeatable (default: off)',
      collect,
    )
    .option('--layers <count>', 'MoE layers of the recorded model; a .u8 without it has 48')
    .option('--experts <count>', 'experts of each layer; without it 128 for a .u8, else the power of two above all ids')
    .option('--top-k <count>', 'experts a token uses in a layer; a .u8 without it has 8')
    .addOption(
      new Option(
        '--scope <scope>',
        'caches of the baselines: one for all layers, or one a layer; auto: layer where ranks are recorded',
      )
        .choices(['auto', 'global', 'layer'])
        .default('auto'),
    )
    .addOption(
      new Option(
        '--counting <counting>',
        'of the baselines: access (experts one by one, a miss inserts at once) or event (a layer at once); auto: event where ranks are recorded',
      )
        .choices(['auto', 'access', 'event'])
        .default('auto'),
    )
    .option('--expert-bytes <bytes>', 'bytes of one expert', '3059712')
    .option('--disk-rate <MB/s>', 'rate of the disk, 10^6 bytes a second', '2000')
    .option('--disk-latency-ms <ms>', 'from asking to the first byte', '0.1')
    .option('--queue-depth <count>', 'reads in flight at once', '8')
    .option('--layer-ms <ms>', 'computing one layer but for its experts', '0.2')
    .option('--expert-ms <ms>', 'computing one expert for one token', '0.05')
    .option(
      '--measure <model>',
      'a .moe directory to run here for some 40 tokens: it gives those of the numbers above that are not given, but for the latency',
    )
    .option('--svg <file>', 'plot hit rate over residency')
    .option('--json', 'print one JSON object: { rows: [...], machine: {...} }')
    .addHelpText(
      'after',
      [
        '',
        'hitRate is that of the whole trace from an empty cache; hitRateSecondHalf scores the second half only.',
        '"default" is the shipped policy in the plans of the engine; "belady" knows the future.',
        'With --prefetch "default" also reads on a guess while the next layer computes until its router has chosen; its bytes',
        'are useful (there in time), late (on their way when wanted) or wasted (never used). "auto" asks the router where it is',
        'recorded and else statistics, compares steps with and without as the engine does, and says when and why it stops.',
        '',
        'Examples:',
        '  moestro replay chat.csv',
        '  moestro replay a.jsonl b.u8 --policy lru,default,belady --residency 6,12.5,25 --svg hit-rates.svg',
        '  moestro replay chat.csv --policy default --prefetch off,statistics,auto --layer-ms 0.5',
        '  moestro replay chat.moetrace --policy default --prefetch off,statistics,router,auto',
        '  moestro replay chat.csv --measure my-model.moe --layer-ms 0.3',
        '  moestro replay other.u8 --layers 24 --experts 60 --top-k 4 --json',
      ].join('\n'),
    )
    .action(replay);
}

async function replay(paths: readonly string[], options: ReplayOptions, command: Command): Promise<void> {
  const policies = options.policy ?? ['lru', 'lfu-decay', 'default', 'belady'];
  for (const policy of policies) parsePolicy(policy);
  const residencies = (options.residency ?? ['12.5', '25', '50']).map(percent);
  const prefetches = (options.prefetch ?? ['off']).map(prefetchOf);
  const count = (flag: string, text: string | undefined, most: number) =>
    text === undefined ? undefined : wholeNumber(flag, text, 1, most);
  const layers = count('--layers', options.layers, 1023);
  const experts = count('--experts', options.experts, 65_536);
  const topK = count('--top-k', options.topK, 63);
  const geometry = {
    ...(layers === undefined ? {} : { layers }),
    ...(experts === undefined ? {} : { experts }),
    ...(topK === undefined ? {} : { topK }),
  };
  const traces = paths.map((path) => openTrace(path, geometry));
  const machine = await machineOf(options, (key) => command.getOptionValueSource(key) !== 'default');
  const progress = statusLine();
  const rows = runReplay({
    traces,
    policies,
    residencies,
    prefetches,
    scope: options.scope === 'auto' ? null : options.scope,
    counting: options.counting === 'auto' ? null : options.counting,
    machine,
    onRow: (row) => progress.show(`${row.trace}  ${row.policy}  ${row.residency} %`),
  });
  progress.clear();
  if (options.svg !== undefined) writePlot(options.svg, rows);
  const told = options.measure === undefined ? '' : `${sentence(machine)}\n\n`;
  process.stdout.write(
    options.json === true ? `${JSON.stringify({ rows, machine })}\n` : told + table(rows) + remarks(rows),
  );
}

function percent(text: string): number {
  if (text === 'recorded') return AS_RECORDED;
  return decimalNumber('--residency', text.replace(/\s*%$/, ''), 0.1, 100);
}

function prefetchOf(text: string): ReplayPrefetch {
  const found = REPLAY_PREFETCH.find((name) => name === text);
  if (found !== undefined) return found;
  throw new MoestroError(
    'INVALID_CONFIG',
    `Cannot use --prefetch "${text}": needed one of ${REPLAY_PREFETCH.join(', ')}`,
    { name: '--prefetch', found: text },
  );
}

/** What is told of the machine; with --measure what is told by name, and the rest from a run. */
async function machineOf(
  options: ReplayOptions,
  isGiven: (key: keyof ReplayOptions) => boolean,
): Promise<MachineModel> {
  const told: MachineModel = {
    expertBytes: wholeNumber('--expert-bytes', options.expertBytes, 1, 2 ** 40),
    diskBytesPerMs: 1000 * decimalNumber('--disk-rate', options.diskRate, 0.001, 1e9),
    diskLatencyMs: decimalNumber('--disk-latency-ms', options.diskLatencyMs, 0, 1e6),
    queueDepth: wholeNumber('--queue-depth', options.queueDepth, 1, 4096),
    layerMs: decimalNumber('--layer-ms', options.layerMs, 0, 1e6),
    expertMs: decimalNumber('--expert-ms', options.expertMs, 0, 1e6),
  };
  if (options.measure === undefined) return told;
  const config = engineConfig(options.measure, {});
  const { manifest } = await openMoe(options.measure);
  const budget = Math.ceil(memoryFloor(manifest) * 1.05);
  const runtime = runtimeBytes(process.memoryUsage.rss(), manifest.architecture.vocabSize);
  const rate = isGiven('diskRate') ? told.diskBytesPerMs : null;
  const measured = await measureMachine(manifest, config, budget, planMemory(manifest, config, runtime, budget), {
    diskBytesPerMs: rate,
    computeMs: null,
  });
  return {
    expertBytes: isGiven('expertBytes') ? told.expertBytes : measured.expertBytes,
    diskBytesPerMs: measured.diskBytesPerMs,
    diskLatencyMs: told.diskLatencyMs,
    queueDepth: isGiven('queueDepth') ? told.queueDepth : measured.queueDepth,
    layerMs: isGiven('layerMs') ? told.layerMs : measured.layerMs,
    expertMs: isGiven('expertMs') ? told.expertMs : measured.expertMs,
  };
}

function sentence({ expertBytes, diskBytesPerMs, layerMs, expertMs }: MachineModel): string {
  const disk = `disk ${(diskBytesPerMs / 1000).toFixed(0)} MB/s, experts of ${(expertBytes / 1e6).toFixed(2)} MB`;
  return `${disk}, ${layerMs.toFixed(3)} ms a layer, ${expertMs.toFixed(4)} ms an expert`;
}

function writePlot(path: string, rows: readonly ReplayRow[]): void {
  try {
    writeFileSync(path, plotReplay(rows));
  } catch (cause) {
    throw new MoestroError('IO_ERROR', `Cannot write the plot to "${path}"`, { path }, cause);
  }
}

const nameOf = ({ policy, prefetch, guessSource }: ReplayRow): string =>
  prefetch === 'off' ? policy : `${policy} + ${prefetch}${prefetch === 'auto' ? ` (${guessSource})` : ''}`;

/** Below the table: why guesses were off, and how good the recorded ones are. */
function remarks(rows: readonly ReplayRow[]): string {
  const lines = new Set<string>();
  for (const row of rows) {
    if (row.offReason === null) continue;
    const size = `${Number(row.residency.toFixed(2))} %`;
    lines.add(`${row.trace}, ${nameOf(row)}, ${size}: without guesses, as ${row.offReason}`);
  }
  for (const { trace, guessSource, earlyRecall } of rows) {
    if (guessSource !== 'router' || earlyRecall === null) continue;
    lines.add(
      `${trace}: asked a layer early, its routers name ${(100 * earlyRecall).toFixed(1)} % of what they choose`,
    );
  }
  return lines.size === 0 ? '' : `\n${[...lines].join('\n')}\n`;
}

function table(rows: readonly ReplayRow[]): string {
  const guesses = rows.some((row) => row.prefetch !== 'off');
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
  const head = ['trace', 'policy', 'caches', 'resident', 'hit rate', '2nd half', 'MB/token', 'stall ms', 'tok/s'];
  if (guesses) head.push('useful MB', 'late MB', 'wasted MB', 'off');
  const cells = rows.map((row) => [
    row.trace,
    nameOf(row),
    `${row.scope}, ${row.counting}`,
    `${Number(row.residency.toFixed(2))} %`,
    (100 * row.hitRate).toFixed(1),
    (100 * row.hitRateSecondHalf).toFixed(1),
    megabytes(row.bytesPerToken),
    row.stallMs.toFixed(1),
    row.tokensPerSecond.toFixed(1),
    ...(guesses ? [row.usefulBytes, row.lateBytes, row.wastedBytes].map(megabytes) : []),
    ...(guesses ? [row.offShare === null ? '' : `${(100 * row.offShare).toFixed(0)} %`] : []),
  ]);
  const widths = head.map((name, column) => Math.max(name.length, ...cells.map((row) => row[column]!.length)));
  return [head, ...cells]
    .map((row) =>
      row
        .map((cell, i) => (i < 3 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}
