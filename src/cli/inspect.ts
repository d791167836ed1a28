/** `moestro inspect MODEL`: what a `.moe` directory holds, in plain words or as JSON. */
import { Argument, Command } from 'commander';
import { formatBytes, formatBytesUp } from '../bytes.js';
import { engineConfig } from '../config.js';
import { planMemory, runtimeBytes } from '../engine/memory-plan.js';
import { MoestroError } from '../errors.js';
import type { Architecture, Manifest } from '../model/manifest.js';
import { type MoeModel, openMoe, verifyMoe } from '../model/read-moe.js';
import { BUNDLED_MODEL } from './bundled.js';
import { progressLine } from './progress-line.js';

export interface Inspection {
  readonly path: string;
  readonly name: string;
  readonly source: string;
  readonly family: string;
  readonly parameters: { readonly total: number; readonly active: number };
  readonly architecture: Architecture;
  readonly bytes: { readonly dense: number; readonly experts: number; readonly expertRecord: number };
  /** Bits a weight of the dense matrices, scales included, the mean over all; and their kinds. */
  readonly denseBitsPerWeight: number;
  readonly denseKinds: readonly string[];
  /** Bits a weight of an expert at each level, scales included, and what one expert then takes in memory. */
  readonly levels: readonly {
    readonly level: number;
    readonly bitsPerWeight: number;
    readonly expertBytes: number;
    readonly relativeError: number | null;
    readonly isDefault: boolean;
  }[];
  readonly memory: { readonly floorBytes: number; readonly allResidentBytes: number };
  readonly calibration: Manifest['calibration'];
  readonly synthetic: boolean;
  /** Whether every checksum was compared (--verify). */
  readonly verified: boolean;
}

export function inspectCommand(): Command {
  return new Command('inspect')
    .description('Shows what is in a .moe directory: architecture, levels, sizes, the memory it needs.')
    .addArgument(new Argument('[model]', 'a .moe directory').default(BUNDLED_MODEL, 'the bundled model'))
    .option('--json', 'print one JSON object')
    .option('--verify', 'read everything and compare every checksum')
    .addHelpText('after', '\nExamples:\n  moestro inspect\n  moestro inspect my-model.moe --verify')
    .action(async (path: string, flags: { readonly json?: boolean; readonly verify?: boolean }) => {
      const model = flags.verify === true ? await verifyWithProgress(path) : await openMoe(path);
      const inspection = inspectModel(model, flags.verify === true);
      process.stdout.write(flags.json === true ? `${JSON.stringify(inspection, null, 2)}\n` : describe(inspection));
    });
}

async function verifyWithProgress(path: string): Promise<MoeModel> {
  const line = progressLine(process.stderr, 'bytes');
  try {
    return await verifyMoe(path, ({ doneBytes, totalBytes }) => line.update('verify', doneBytes, totalBytes));
  } finally {
    line.stop();
  }
}

export function inspectModel(model: MoeModel, verified: boolean): Inspection {
  const { manifest, path, moeLayerCount } = model;
  const { architecture, geometry, dense, experts } = manifest;
  const expertWeights = 3 * architecture.hiddenSize * architecture.expertSize;
  const denseWeights = Object.values(dense.tensors).reduce((sum, { rows, cols }) => sum + rows * cols, 0);
  const matrices = Object.values(dense.tensors).filter(({ kind }) => kind !== 'f32');
  const sumOf = (numbers: readonly number[]): number => numbers.reduce((sum, one) => sum + one, 0);
  const floorBytes = memoryFloor(manifest);
  const held = moeLayerCount * architecture.expertCount;
  const expertBytes = (level: number): number => geometry.scaleBytes + level * geometry.bitBytes;
  return {
    path,
    name: manifest.name,
    source: manifest.source,
    family: architecture.family,
    parameters: {
      total: denseWeights + held * expertWeights,
      active: denseWeights + moeLayerCount * architecture.topK * expertWeights,
    },
    architecture,
    bytes: { dense: dense.bytes, experts: experts.bytes, expertRecord: geometry.recordBytes },
    denseBitsPerWeight: (8 * sumOf(matrices.map((one) => one.bytes))) / sumOf(matrices.map((m) => m.rows * m.cols)),
    denseKinds: [...new Set(matrices.map(({ kind }) => kind))].sort(),
    levels: manifest.levels.map((level) => ({
      level,
      bitsPerWeight: (8 * expertBytes(level)) / expertWeights,
      expertBytes: expertBytes(level),
      relativeError: manifest.quality.relativeError[String(level)] ?? null,
      isDefault: level === manifest.defaultLevel,
    })),
    memory: {
      floorBytes,
      // The floor holds two tokens' experts of one layer; the rest of them come on top.
      allResidentBytes: floorBytes + Math.max(0, held - 2 * architecture.topK) * expertBytes(manifest.defaultLevel),
    },
    calibration: manifest.calibration,
    synthetic: manifest.synthetic === true,
    verified,
  };
}

/** The least budget the engine would start with here, by the engine's own arithmetic. */
export function memoryFloor(manifest: Manifest): number {
  const runtime = runtimeBytes(process.memoryUsage.rss(), manifest.architecture.vocabSize);
  try {
    return planMemory(manifest, engineConfig('', {}, {}), runtime, 0).plan.total;
  } catch (error) {
    if (error instanceof MoestroError && typeof error.details.floorBytes === 'number') return error.details.floorBytes;
    throw error;
  }
}

function describe(found: Inspection): string {
  const { architecture: a, bytes, memory, parameters } = found;
  const moeLayers = a.layerKinds.filter((kind) => kind === 'moe').length;
  const dense = a.layerCount - moeLayers;
  const lines = [
    `${found.name}${found.synthetic ? ' (synthetic: random weights, for speed only)' : ''}`,
    `  from          ${found.source}`,
    `  architecture  ${a.family}, ${count(parameters.total)} parameters, ${count(parameters.active)} used per token`,
    `  layers        ${a.layerCount}${dense > 0 ? ` (${dense} without experts)` : ''}, hidden size ${a.hiddenSize}, ${a.headCount} query and ${a.kvHeadCount} key-value heads of ${a.headDim}`,
    `  experts       ${a.expertCount} a layer of size ${a.expertSize}, ${a.topK} used per token${a.sharedExpertSize > 0 ? `, and a shared one of size ${a.sharedExpertSize}` : ''}`,
    `  context       up to ${a.contextLength} positions, vocabulary of ${a.vocabSize}`,
    `  on disk       ${formatBytes(bytes.dense)} dense weights (${found.denseKinds.join(', ')}: ${found.denseBitsPerWeight.toFixed(2)} bits a weight), ${formatBytes(bytes.experts)} experts (${formatBytes(bytes.expertRecord)} each)`,
    `  memory        at least ${formatBytesUp(memory.floorBytes)}; ${formatBytesUp(memory.allResidentBytes)} hold every expert at level ${found.levels.find((one) => one.isDefault)?.level}`,
    `  calibration   ${found.calibration === null ? 'none' : `${found.calibration.tokens} tokens of ${found.calibration.text}`}`,
    '  levels        bits per weight, one expert in memory, mean relative squared error',
    ...found.levels.map(
      ({ level, bitsPerWeight, expertBytes, relativeError, isDefault }) =>
        `    ${String(level).padEnd(2)} ${bitsPerWeight.toFixed(2).padStart(6)}  ${formatBytes(expertBytes).padStart(9)}  ${relativeError === null ? 'unknown' : `${(100 * relativeError).toPrecision(3)} %`}${isDefault ? '  (default)' : ''}`,
    ),
    ...(found.verified ? ['  verified      every checksum agrees'] : []),
  ];
  return `${lines.join('\n')}\n`;
}

/** "28.3 M", "6.92 B". */
function count(parameters: number): string {
  if (parameters >= 1e9) return `${(parameters / 1e9).toPrecision(3)} B`;
  return `${(parameters / 1e6).toPrecision(3)} M`;
}
