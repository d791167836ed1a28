/** `moestro plan MODEL`: where the memory of a budget would go, and how fast the model would then be here. */
import { Command } from 'commander';
import { formatBytes, parseBytes } from '../bytes.js';
import { engineConfig } from '../config.js';
import { planMemory, runtimeBytes } from '../engine/memory-plan.js';
import type { EngineConfig, MemoryPlan } from '../engine/types.js';
import { memoryLimitBytes } from '../machine.js';
import { openMoe } from '../model/read-moe.js';
import { openTrace } from '../replay/open-trace.js';
import { evenMisses, kneeOf, meanStallMs, type MissesAt, recordedMisses } from '../replay/predict.js';
import type { MachineModel } from '../replay/types.js';
import { ENGINE_SETTINGS } from '../settings/engine-settings.js';
import { PREFIX_SETTINGS } from '../settings/prefix-settings.js';
import { memoryFloor } from './inspect.js';
import { measureMachine } from './measure-machine.js';
import { decimalNumber } from './numbers.js';
import { addSettings, givenSettings } from './options.js';

const SETTINGS = ENGINE_SETTINGS.filter(
  (one) =>
    !['budget', 'maxQueued', 'gear', 'tokenGap', 'mode', 'meanBits', 'recordTrace'].includes(one.key) &&
    !PREFIX_SETTINGS.includes(one),
);
/** Budgets from the floor to everything resident where none is named. */
const POINTS = 8;

interface PlanOptions {
  readonly budget?: readonly string[];
  readonly trace?: string;
  readonly diskRate?: string;
  readonly computeMs?: string;
  readonly json?: boolean;
}

export interface PlannedBudget {
  readonly budgetBytes: number;
  readonly memory: MemoryPlan;
  /** Of all experts, and of those a token asks for. */
  readonly residentShare: number;
  readonly hitRate: number;
  readonly bytesPerToken: number;
  readonly stallMs: number;
  readonly tokensPerSecond: number;
}

export function planCommand(): Command {
  const command = new Command('plan')
    .description(
      'Shows where the memory of a budget would go and predicts tokens a second over budgets, with the knee named.',
    )
    .argument('<model>', 'a .moe directory')
    .option(
      '--budget <sizes>',
      'budgets, "2GiB,4GiB"; repeatable (default: eight from the floor to everything resident)',
      collect,
    )
    .option('--trace <file>', 'recorded routing to predict by (.jsonl, .csv, .u8); without it routing is taken as even')
    .option('--disk-rate <MB/s>', 'rate of the disk, 10^6 bytes a second; measured when absent')
    .option('--compute-ms <ms>', 'milliseconds to compute one token with everything resident; measured when absent')
    .option('--json', 'print one JSON object');
  addSettings(command, SETTINGS);
  command.addHelpText(
    'after',
    [
      '',
      'What is not given is measured by running the model for some 40 tokens at the smallest budget that is asked about:',
      'compute is the time a token takes less its stalls, the rate of the disk that at which such stalls come about.',
      'Even routing is the worst case: trained routers hit more.',
      '',
      'Examples:',
      '  moestro plan my-model.moe',
      '  moestro plan my-model.moe --budget 2GiB,4GiB --trace chat.csv --json',
    ].join('\n'),
  );
  return command.action(plan);
}

function collect(value: string, earlier: readonly string[] = []): readonly string[] {
  return [...earlier, ...value.split(',').map((item) => item.trim())];
}

async function plan(path: string, options: PlanOptions & Record<string, string>): Promise<void> {
  const config = engineConfig(path, givenSettings(options, SETTINGS));
  const { manifest, moeLayerCount } = await openMoe(path);
  const { architecture } = manifest;
  const runtime = runtimeBytes(process.memoryUsage.rss(), architecture.vocabSize);
  const budgets = budgetsOf(options.budget, manifest, config);
  const memories = budgets.map((budget) => planMemory(manifest, config, runtime, budget));
  const shape = { layers: moeLayerCount, experts: architecture.expertCount, topK: architecture.topK };
  const trace = options.trace === undefined ? null : openTrace(options.trace, {});
  const missesAt = trace === null ? evenMisses(shape) : recordedMisses(trace, shape);
  const level = memories[0]!.level;
  const given = (flag: string, text: string | undefined, least: number, most: number) =>
    text === undefined ? null : decimalNumber(flag, text, least, most);
  const diskRate = given('--disk-rate', options.diskRate, 0.001, 1e9);
  const machine = await measureMachine(manifest, config, budgets[0]!, memories[0]!, {
    diskBytesPerMs: diskRate === null ? null : 1000 * diskRate,
    computeMs: given('--compute-ms', options.computeMs, 0, 1e6),
  });
  const rows = memories.map(({ plan: memory }) => predict(memory, missesAt, shape, machine));
  const knee = kneeOf(
    budgets,
    rows.map((row) => row.tokensPerSecond),
  );
  const result = {
    model: manifest.name,
    level,
    trace: trace?.name ?? null,
    machine: {
      diskMBps: machine.diskBytesPerMs / 1000,
      computeMs: shape.layers * (machine.layerMs + shape.topK * machine.expertMs),
    },
    rows,
    kneeBudgetBytes: budgets[knee]!,
  };
  process.stdout.write(options.json === true ? `${JSON.stringify(result)}\n` : describe(result, knee));
}

function budgetsOf(
  given: readonly string[] | undefined,
  manifest: Parameters<typeof memoryFloor>[0],
  config: EngineConfig,
): number[] {
  if (given !== undefined) {
    return given.map((text) => parseBytes(text, '--budget', memoryLimitBytes())).sort((a, b) => a - b);
  }
  // The floor is that of the default configuration; what these flags add to it is within the first step.
  const floor = Math.ceil(memoryFloor(manifest) * 1.05);
  const expertBytes =
    (config.level ?? manifest.defaultLevel) * manifest.geometry.bitBytes + manifest.geometry.scaleBytes;
  const experts =
    manifest.architecture.expertCount * manifest.architecture.layerKinds.filter((k) => k === 'moe').length;
  const all = Math.ceil(1.2 * floor + experts * expertBytes);
  return Array.from({ length: POINTS }, (_, i) => Math.round(floor * (all / floor) ** (i / (POINTS - 1))));
}

function predict(
  memory: MemoryPlan,
  missesAt: MissesAt,
  { layers, topK }: { readonly layers: number; readonly topK: number },
  machine: MachineModel,
): PlannedBudget {
  const misses = missesAt(memory.residentExperts);
  const stallMs = layers * meanStallMs(misses, topK, machine);
  return {
    budgetBytes: memory.total,
    memory,
    residentShare: memory.residentExperts / memory.expertCount,
    hitRate: 1 - misses / topK,
    bytesPerToken: misses * layers * machine.expertBytes,
    stallMs,
    tokensPerSecond: 1000 / (stallMs + layers * (machine.layerMs + topK * machine.expertMs)),
  };
}

function describe(
  result: {
    readonly model: string;
    readonly level: number;
    readonly trace: string | null;
    readonly machine: { readonly diskMBps: number; readonly computeMs: number };
    readonly rows: readonly PlannedBudget[];
  },
  knee: number,
): string {
  const { machine, rows } = result;
  const lines = [
    `${result.model} at level ${result.level}, routing ${result.trace === null ? 'taken as even (the worst case)' : `as in ${result.trace}`}`,
    `disk ${machine.diskMBps.toFixed(0)} MB/s, ${machine.computeMs.toFixed(1)} ms to compute a token`,
    '',
    '    budget       dense     experts          KV   resident  hit rate   MB/token  stall ms     tok/s',
    ...rows.map((row, index) => {
      const { memory } = row;
      const sizes = [row.budgetBytes, memory.dense, memory.experts, memory.kv].map((n) => formatBytes(n).padStart(11));
      const numbers = [
        `${(100 * row.residentShare).toFixed(1)} %`.padStart(10),
        `${(100 * row.hitRate).toFixed(1)} %`.padStart(9),
        (row.bytesPerToken / 1e6).toFixed(1).padStart(10),
        row.stallMs.toFixed(1).padStart(9),
        row.tokensPerSecond.toFixed(1).padStart(9),
      ];
      return `${sizes.join(' ')} ${numbers.join(' ')}${index === knee ? '  <- the knee' : ''}`;
    }),
    '',
    `Beyond ${formatBytes(rows[knee]!.budgetBytes)} each byte buys less than before it.`,
    '',
  ];
  return lines.join('\n');
}
