/**
 * What calibration learns of one model: which inputs every expert sees. Products of inputs within blocks of `width`
 * columns, so that a quantiser can tell what errors will do to outputs (native/quantise/error_feedback.h); as wide
 * blocks as memory allows.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { MoestroError } from '../errors.js';
import { type Disk, realDisk, writeError } from './disk.js';
import type { Architecture } from './manifest.js';

/** What the sums of all experts may take while a model reads the calibration text. */
const SUMS_BYTES_MAX = 1 << 30;
const WIDTHS = [1024, 512, 256, 128, 64, 32] as const;
/** Tokens' worth of the layer's mean that every expert starts from, beside one for each column of a block. */
const PRIOR_TOKENS = 32;
/** Number of float64 values before the float32 ones of a saved file: tokens, width, values. */
const HEADER_VALUES = 3;

/** What the engine counted for one expert: sums of input products, [columns, width]. */
export interface ImportanceSums {
  readonly tokens: number;
  readonly gateUp: Float32Array;
  readonly down: Float32Array;
}

/** Means of one expert. */
export interface ExpertImportance {
  readonly gateUp: Float32Array;
  readonly down: Float32Array;
}

/** Columns of a block: all of them for small experts, fewer where the sums would not fit, 1 (squares) at worst. */
export function importanceWidth(architecture: Architecture): number {
  const { hiddenSize, expertSize, expertCount, layerKinds } = architecture;
  const columns = layerKinds.filter((kind) => kind === 'moe').length * expertCount * (hiddenSize + expertSize);
  const enough = Math.max(hiddenSize, expertSize);
  const fitting = WIDTHS.filter((width) => columns * width * 4 <= SUMS_BYTES_MAX);
  // The narrowest that holds all columns, else the widest that fits.
  return fitting.findLast((width) => width >= enough) ?? fitting[0] ?? 1;
}

/**
 * Means of one layer's experts. One that the text seldom reached leans on its neighbours: for gate and up on the
 * layer's mean; inner columns of different experts have nothing in common, so for down on their mean square.
 */
export function meanImportance(sums: readonly ImportanceSums[], width: number): ExpertImportance[] {
  const tokens = sums.reduce((sum, one) => sum + one.tokens, 0);
  const gateUpLength = sums[0]?.gateUp.length ?? 0;
  const downLength = sums[0]?.down.length ?? 0;
  const layerMean = new Float32Array(gateUpLength);
  let downMean = tokens === 0 ? 1 : 0;
  if (tokens === 0) for (let i = 0; i < gateUpLength; i++) layerMean[i] = isSquare(i, width) ? 1 : 0;
  for (const { gateUp, down } of tokens === 0 ? [] : sums) {
    for (let i = 0; i < gateUpLength; i++) layerMean[i]! += gateUp[i]! / tokens;
    for (let i = 0; i < downLength; i++) if (isSquare(i, width)) downMean += down[i]! / tokens / (downLength / width);
  }
  const prior = width === 1 ? PRIOR_TOKENS : Math.max(PRIOR_TOKENS, width);
  return sums.map((one) => {
    const weight = 1 / (one.tokens + prior);
    return {
      gateUp: one.gateUp.map((sum, i) => (sum + prior * layerMean[i]!) * weight),
      down: one.down.map((sum, i) => (sum + (isSquare(i, width) ? prior * downMean : 0)) * weight),
    };
  });
}

/** Whether entry i of [columns, width] is a column's product with itself. */
const isSquare = (i: number, width: number): boolean => i % width === Math.floor(i / width) % width;

const bytesOf = (values: Float32Array | Float64Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** The importance of all experts in a file beside a conversion: memory holds one expert's, and a killed run has it still. */
export class ImportanceFile {
  readonly tokens: number;
  readonly width: number;
  readonly #descriptor: number;
  readonly #gateUpLength: number;
  readonly #downLength: number;

  private constructor(descriptor: number, tokens: number, width: number, architecture: Architecture) {
    this.#descriptor = descriptor;
    this.tokens = tokens;
    this.width = width;
    this.#gateUpLength = architecture.hiddenSize * width;
    this.#downLength = architecture.expertSize * width;
  }

  /** Undefined where there is none, or one of another shape. `records`: experts in all. Throws IO_ERROR. */
  static async open(path: string, architecture: Architecture, records: number): Promise<ImportanceFile | undefined> {
    try {
      const { size } = await stat(path);
      const descriptor = openSync(path, 'r');
      const header = new Float64Array(HEADER_VALUES);
      readSync(descriptor, header, 0, header.byteLength, 0);
      const [tokens, width, values] = header as unknown as [number, number, number];
      const needed = records * (architecture.hiddenSize + architecture.expertSize) * width;
      if (values === needed && size === header.byteLength + 4 * values)
        return new ImportanceFile(descriptor, tokens, width, architecture);
      closeSync(descriptor);
      return undefined;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw new MoestroError('IO_ERROR', `Cannot read "${path}": ${(cause as Error).message}`, { path }, cause);
    }
  }

  /**
   * Writes the experts of all layers in order; the file is there whole or not at all. `bytes`: what it will take, for
   * the error when the disk has no room.
   *
   * @throws {MoestroError} DISK_FULL, IO_ERROR; what `layers` throws.
   */
  static async write(
    path: string,
    tokens: number,
    width: number,
    bytes: number,
    layers: AsyncIterable<ExpertImportance[]>,
    disk: Disk = realDisk,
  ): Promise<void> {
    const partial = `${path}.partial`;
    let position = HEADER_VALUES * 8;
    try {
      const file = await open(partial, 'w');
      try {
        for await (const experts of layers) {
          for (const values of experts.flatMap(({ gateUp, down }) => [gateUp, down])) {
            await disk.write(file, bytesOf(values), position);
            position += values.byteLength;
          }
        }
        // The number of values last: without it, the file is none.
        await disk.write(file, bytesOf(Float64Array.of(tokens, width, (position - HEADER_VALUES * 8) / 4)), 0);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(partial, path);
    } catch (error) {
      await rm(partial, { force: true });
      throw await writeError(disk, 'Cannot save the importance', dirname(path), Math.max(0, bytes - position), error);
    }
  }

  /** `record` is the expert's place in experts.bin. */
  read(record: number): ExpertImportance {
    const values = new Float32Array(this.#gateUpLength + this.#downLength);
    const bytes = readSync(
      this.#descriptor,
      values,
      0,
      values.byteLength,
      HEADER_VALUES * 8 + record * values.byteLength,
    );
    if (bytes !== values.byteLength)
      throw new MoestroError(
        'IO_ERROR',
        `Cannot read the importance of expert record ${record}: got ${bytes} bytes, needed ${values.byteLength}`,
      );
    return { gateUp: values.subarray(0, this.#gateUpLength), down: values.subarray(this.#gateUpLength) };
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}
