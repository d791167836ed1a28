/**
 * A model of another format becomes a `.moe` directory: dense tensors first, then the experts, quantised side by side
 * and written in order. Memory holds a bounded number of experts whatever the model's size.
 */
import { createHash } from 'node:crypto';
import { existsSync, realpathSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, resolve, sep } from 'node:path';
import { MoestroError } from '../errors.js';
import { VERSION } from '../version.js';
import { denseTensorShapes } from './architecture-limits.js';
import { type DenseBits, type DenseKind, denseTensorBytes, denseTensorKind, denseTensorParts } from './dense-layout.js';
import type { Disk } from './disk.js';
import { openSource } from './import/index.js';
import type { ModelSource } from './import/source.js';
import {
  type Architecture,
  DEFAULT_TABLES,
  FORMAT_NAME,
  FORMAT_VERSION,
  type PlaneGeometry,
  type PlaneTables,
} from './manifest.js';
import { planeGeometry } from './plane-geometry.js';
import { runInOrder } from './quantise/in-order.js';
import type { QuantiseDone } from './quantise/job.js';
import { openQuantisePool, type QuantisePool } from './quantise/pool.js';
import { type MoeWriter, openMoeWriter } from './write-moe.js';

/** Source and result bytes under way at once: what conversion takes beside its threads, except for a larger expert. */
const UNDER_WAY_BYTES = 768 << 20;
/** Source bytes of one job of a dense matrix. */
const DENSE_JOB_BYTES = 8 << 20;
/** Below this, models keep level 8 unless told otherwise: it costs little then. */
const SMALL_EXPERTS_BYTES = 1_000_000_000;

/** Mean squared input per column, as quantise_expert takes it; undefined where nothing is known. */
export type ImportanceOf = (
  layer: number,
  expert: number,
) => { readonly gateUp: Float32Array; readonly down: Float32Array } | undefined;

export interface ConvertOptions {
  /** A Hugging Face directory or a GGUF file. */
  readonly source: string;
  /** The `.moe` directory to write. */
  readonly out: string;
  /** Bits stored per expert weight; chosen by size when absent. */
  readonly bits?: 4 | 8;
  /** Bits of attention, shared expert, dense FFN, embedding and head: 8 when absent. See denseTensorKind(). */
  readonly denseBits?: DenseBits;
  readonly threads?: number;
  readonly force?: boolean;
  /** As in QuantiseExpertRequest. */
  readonly onlyLevel?: 2 | 3 | 4;
  readonly calibration?: {
    readonly importance: ImportanceOf;
    /** For the manifest. */
    readonly tokens: number;
    readonly text: string;
    /** Tables of codes for such a calibration. */
    readonly tables: PlaneTables;
    /** Tells this calibration from others when a conversion is resumed. */
    readonly key: string;
  };
  readonly onProgress?: (progress: ConvertProgress) => void;
  /** As in MoeWriterOptions. */
  readonly ledgerEveryBytes?: number;
  readonly disk?: Disk;
}

export interface ConvertProgress {
  readonly phase: 'dense' | 'experts' | 'done';
  /** Weights converted and in all, and those of them that an earlier run had left done. */
  readonly doneWeights: number;
  readonly totalWeights: number;
  readonly resumedWeights: number;
}

/**
 * Converts a model; goes on where an earlier, killed conversion of the same source to the same place stopped.
 *
 * @throws {MoestroError} what `openSource` throws; OUTPUT_EXISTS, DISK_FULL, IO_ERROR; SOURCE_INVALID naming the
 * tensor that holds no finite numbers.
 */
export async function convert(options: ConvertOptions): Promise<void> {
  const source = await openSource(options.source);
  try {
    refuseOutAroundSource(options);
    await convertSource(source, await fingerprint(options.source), options);
  } finally {
    await source.close();
  }
}

/** With `force` the directory at `out` goes: the source must not go with it. */
function refuseOutAroundSource({ source, out }: ConvertOptions): void {
  const whole = existsSync(out) ? realpathSync(out) : resolve(out);
  if (!`${realpathSync(source)}${sep}`.startsWith(`${whole}${sep}`)) return;
  throw new MoestroError(
    'OUTPUT_EXISTS',
    `Cannot write "${out}": the source "${source}" lies there, needed another place`,
    { path: out },
  );
}

/** The same for a source that is open. `sourceKey` tells its content from another's. */
export async function convertSource(source: ModelSource, sourceKey: string, options: ConvertOptions): Promise<void> {
  const { architecture } = source;
  const bits = options.bits ?? defaultBits(architecture);
  const denseBits = options.denseBits ?? 8;
  const geometry = planeGeometry(architecture.hiddenSize, architecture.expertSize, bits);
  const experts = expertList(architecture);
  const shapes = denseTensorShapes(architecture);
  const threads = options.threads ?? availableParallelism();
  const tables = options.calibration?.tables ?? DEFAULT_TABLES;
  const writer = await openMoeWriter({
    out: options.out,
    dense: shapes,
    denseBits,
    geometry,
    recordCount: experts.length,
    key: JSON.stringify([
      FORMAT_VERSION,
      sourceKey,
      architecture,
      bits,
      denseBits,
      tables,
      options.onlyLevel ?? null,
      options.calibration?.key ?? null,
    ]),
    force: options.force === true,
    ...(options.ledgerEveryBytes === undefined ? {} : { ledgerEveryBytes: options.ledgerEveryBytes }),
    ...(options.disk === undefined ? {} : { disk: options.disk }),
  });
  const pool = openQuantisePool(threads);
  try {
    const progress = new Progress(source, experts.length, options.onProgress);
    for (const name of writer.resumedTensors) progress.resumed(weightsOf(shapes.get(name)!));
    progress.resumed(writer.resumedRecords * expertWeights(architecture));
    progress.report('dense');
    for (const [name, shape] of shapes) {
      if (writer.resumedTensors.has(name)) continue;
      await writeDense(source, name, denseTensorKind(name, denseBits), shape, writer, pool, threads, progress);
    }
    await writeExperts(
      source,
      experts.slice(writer.resumedRecords),
      geometry,
      options,
      writer,
      pool,
      threads,
      progress,
    );
    await writer.finish(
      {
        format: FORMAT_NAME,
        version: FORMAT_VERSION,
        name: source.name,
        source: `${source.describe}, converted by moestro ${VERSION}`,
        architecture,
        levels: bits === 8 ? [2, 3, 4, 8] : [2, 3, 4],
        defaultLevel: bits,
        tables,
        tokenizer: { file: 'tokenizer.json', configFile: 'tokenizer_config.json' },
        generation: source.generation,
        calibration:
          options.calibration === undefined
            ? null
            : { tokens: options.calibration.tokens, text: options.calibration.text },
      },
      source.tokenizerJson,
      source.tokenizerConfigJson,
    );
    progress.report('done');
  } finally {
    await pool.close();
    await writer.close();
  }
}

/** 8 where all experts take less than 1 GB with it, else 4. */
export function defaultBits(architecture: Architecture): 4 | 8 {
  const { recordBytes } = planeGeometry(architecture.hiddenSize, architecture.expertSize, 8);
  return expertList(architecture).length * recordBytes < SMALL_EXPERTS_BYTES ? 8 : 4;
}

/** Every (layer, expert) in the order of experts.bin. */
function expertList(architecture: Architecture): readonly (readonly [layer: number, expert: number])[] {
  return architecture.layerKinds.flatMap((kind, layer) =>
    kind === 'moe' ? Array.from({ length: architecture.expertCount }, (_, expert) => [layer, expert] as const) : [],
  );
}

const expertWeights = (architecture: Architecture): number => 3 * architecture.hiddenSize * architecture.expertSize;
const weightsOf = ([rows, cols]: readonly [number, number]): number => rows * cols;

class Progress {
  readonly #total: number;
  readonly #onProgress: ((progress: ConvertProgress) => void) | undefined;
  #done = 0;
  #resumed = 0;

  constructor(source: ModelSource, expertCount: number, onProgress: ConvertOptions['onProgress']) {
    const dense = [...denseTensorShapes(source.architecture).values()].reduce(
      (sum, shape) => sum + weightsOf(shape),
      0,
    );
    this.#total = dense + expertCount * expertWeights(source.architecture);
    this.#onProgress = onProgress;
  }

  resumed(weights: number): void {
    this.#resumed += weights;
    this.#done += weights;
  }

  advance(phase: ConvertProgress['phase'], weights: number): void {
    this.#done += weights;
    this.report(phase);
  }

  report(phase: ConvertProgress['phase']): void {
    this.#onProgress?.({
      phase,
      doneWeights: this.#done,
      totalWeights: this.#total,
      resumedWeights: this.#resumed,
    });
  }
}

/**
 * One dense tensor, a run of rows a job. A matrix has all its codes before its scales, so codes are written as they
 * come and the scales, a thirteenth of the whole at most, are kept until the end.
 */
async function writeDense(
  source: ModelSource,
  name: string,
  kind: DenseKind,
  [rows, cols]: readonly [number, number],
  writer: MoeWriter,
  pool: QuantisePool,
  threads: number,
  progress: Progress,
): Promise<void> {
  const tensor = source.dense(name);
  const rowsPerJob = kind === 'f32' ? rows : wholeTiles(DENSE_JOB_BYTES / (tensor.byteLength / rows));
  const firstRows = Array.from({ length: Math.ceil(rows / rowsPerJob) }, (_, job) => job * rowsPerJob);
  const sink = writer.tensor(name);
  const later: Uint8Array[][] = denseTensorParts(kind, rows, cols).map(() => []);
  const start = async (first: number): Promise<QuantiseDone> => {
    const count = Math.min(rowsPerJob, rows - first);
    const bytes = await tensor.readRows(first, count);
    const { dtype } = tensor;
    return named(name, () =>
      kind === 'f32'
        ? pool.run({ kind, dtype, bytes, count: count * cols })
        : pool.run({ kind, dtype, bytes, rows: count, cols, outBytes: denseTensorBytes(kind, count, cols) }),
    );
  };
  await runInOrder(firstRows, threads + 1, start, async ({ out }, first) => {
    const count = Math.min(rowsPerJob, rows - first);
    let at = 0;
    for (const [index, bytes] of denseTensorParts(kind, count, cols).entries()) {
      if (index === 0) await sink.append(out.subarray(0, bytes));
      else later[index]!.push(out.slice(at, at + bytes));
      at += bytes;
    }
    progress.advance('dense', count * cols);
  });
  for (const part of later.flat()) await sink.append(part);
  sink.end();
}

const wholeTiles = (rows: number): number => Math.max(16, Math.floor(rows / 16) * 16);

async function writeExperts(
  source: ModelSource,
  experts: readonly (readonly [layer: number, expert: number])[],
  geometry: PlaneGeometry,
  options: ConvertOptions,
  writer: MoeWriter,
  pool: QuantisePool,
  threads: number,
  progress: Progress,
): Promise<void> {
  const first = experts[0];
  if (first === undefined) return;
  const { hiddenSize, expertSize } = source.architecture;
  const { gate, up, down } = source.expert(...first);
  const bytesEach = gate.byteLength + up.byteLength + down.byteLength + geometry.recordBytes;
  const limit = Math.max(1, Math.min(threads + 2, Math.floor(UNDER_WAY_BYTES / bytesEach)));
  // Records go to a thread and come back; `limit` of them serve the whole model.
  const spare: ArrayBuffer[] = [];
  const start = async ([layer, expert]: readonly [number, number]): Promise<QuantiseDone> => {
    const matrices = source.expert(layer, expert);
    const importance = options.calibration?.importance(layer, expert);
    const request = {
      gate: await matrices.gate.read(),
      up: await matrices.up.read(),
      down: await matrices.down.read(),
      gateDtype: matrices.gate.dtype,
      upDtype: matrices.up.dtype,
      downDtype: matrices.down.dtype,
      hiddenSize,
      expertSize,
      tables: options.calibration?.tables ?? DEFAULT_TABLES,
      residual: geometry.bitsStored === 8,
      ...(options.onlyLevel === undefined ? {} : { onlyLevel: options.onlyLevel }),
      ...(importance === undefined ? {} : { importance }),
    };
    const out = spare.pop() ?? new ArrayBuffer(geometry.recordBytes);
    return named(`expert ${layer}/${expert}`, () =>
      pool.run({ kind: 'expert', request, out, planes: geometry.planes }),
    );
  };
  await runInOrder(experts, limit, start, async (done) => {
    await writer.record(done.out, done.checksums, done.relativeError);
    spare.push(done.out.buffer);
    progress.advance('experts', expertWeights(source.architecture));
  });
}

/** Says which tensor an error is about: native code knows only its rows. */
async function named<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Error) error.message = `${error.message} (${what})`;
    throw error;
  }
}

/** Changes when a file of the source does. */
export async function fingerprint(path: string): Promise<string> {
  const whole = resolve(path);
  const root = await stat(whole);
  const files = root.isDirectory()
    ? (await readdir(whole)).filter((name) => /\.(json|safetensors|model|jinja)$/.test(name)).sort()
    : [''];
  const hash = createHash('sha256').update(whole);
  for (const file of files) {
    const { size, mtimeMs } = await stat(join(whole, file));
    hash.update(`\n${file} ${size} ${mtimeMs}`);
  }
  return hash.digest('hex');
}
