/**
 * How do the weights of a source get into a `.moe` directory? Read, quantised side by side by the pool and written in order, with
 * a bound on what is under way: dense matrices a run of rows at a time, experts whole.
 */
import type { Progress } from './convert-progress.js';
import { type DenseKind, denseTensorBytes, denseTensorParts } from './dense-layout.js';
import type { ModelSource } from './import/source.js';
import type { Architecture, PlaneGeometry, PlaneTables } from './manifest.js';
import { runInOrder } from './quantise/in-order.js';
import type { QuantiseDone } from './quantise/job.js';
import type { QuantisePool } from './quantise/pool.js';
import type { MoeWriter } from './write-moe.js';

/** Source and result bytes under way at once: what conversion takes beside its threads, except for a larger expert. */
const UNDER_WAY_BYTES = 768 << 20;
/** Source bytes of one job of a dense matrix. */
const DENSE_JOB_BYTES = 8 << 20;

/** From where to where, and who does the work. */
export interface Conversion {
  readonly source: ModelSource;
  readonly writer: MoeWriter;
  readonly pool: QuantisePool;
  readonly threads: number;
  readonly progress: Progress;
}

/** Mean squared input per column, as quantise_expert takes it; undefined where nothing is known. */
export type ImportanceOf = (
  layer: number,
  expert: number,
) => { readonly gateUp: Float32Array; readonly down: Float32Array } | undefined;

export interface ExpertOptions {
  readonly tables: PlaneTables;
  readonly importanceOf: ImportanceOf | undefined;
  /** As in QuantiseExpertRequest. */
  readonly onlyLevel: 2 | 3 | 4 | undefined;
}

export const expertWeights = (architecture: Architecture): number =>
  3 * architecture.hiddenSize * architecture.expertSize;
export const weightsOf = ([rows, cols]: readonly [number, number]): number => rows * cols;

/**
 * One dense tensor, a run of rows a job. A matrix has all its codes before its scales, so codes are written as they
 * come and the scales, a thirteenth of the whole at most, are kept until the end.
 */
export async function writeDense(
  { source, writer, pool, threads, progress }: Conversion,
  name: string,
  kind: DenseKind,
  [rows, cols]: readonly [number, number],
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

/** Experts by (layer, expert), in the order of their records. */
export async function writeExperts(
  { source, writer, pool, threads, progress }: Conversion,
  experts: readonly (readonly [layer: number, expert: number])[],
  geometry: PlaneGeometry,
  { importanceOf, tables, onlyLevel }: ExpertOptions,
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
    const importance = importanceOf?.(layer, expert);
    const request = {
      gate: await matrices.gate.read(),
      up: await matrices.up.read(),
      down: await matrices.down.read(),
      gateDtype: matrices.gate.dtype,
      upDtype: matrices.up.dtype,
      downDtype: matrices.down.dtype,
      hiddenSize,
      expertSize,
      tables,
      residual: geometry.bitsStored === 8,
      ...(onlyLevel === undefined ? {} : { onlyLevel }),
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
