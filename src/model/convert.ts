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
import { type ConvertProgress, Progress } from './convert-progress.js';
import { expertWeights, type ImportanceOf, weightsOf, writeDense, writeExperts } from './convert-weights.js';
import { type DenseBits, denseTensorKind } from './dense-layout.js';
import type { Disk } from './disk.js';
import { openSource } from './import/index.js';
import type { ModelSource } from './import/source.js';
import { type Architecture, DEFAULT_TABLES, FORMAT_NAME, FORMAT_VERSION, type PlaneTables } from './manifest.js';
import { planeGeometry } from './plane-geometry.js';
import { openQuantisePool } from './quantise/pool.js';
import { openMoeWriter } from './write-moe.js';

/** Below this, models keep level 8 unless told otherwise: it costs little then. */
const SMALL_EXPERTS_BYTES = 1_000_000_000;

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
async function convertSource(source: ModelSource, sourceKey: string, options: ConvertOptions): Promise<void> {
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
    const denseWeights = [...shapes.values()].reduce((sum, shape) => sum + weightsOf(shape), 0);
    const progress = new Progress(denseWeights + experts.length * expertWeights(architecture), options.onProgress);
    const conversion = { source, writer, pool, threads, progress };
    for (const name of writer.resumedTensors) progress.resumed(weightsOf(shapes.get(name)!));
    progress.resumed(writer.resumedRecords * expertWeights(architecture));
    progress.report('dense');
    for (const [name, shape] of shapes) {
      if (writer.resumedTensors.has(name)) continue;
      await writeDense(conversion, name, denseTensorKind(name, denseBits), shape);
    }
    await writeExperts(conversion, experts.slice(writer.resumedRecords), geometry, {
      tables,
      importanceOf: options.calibration?.importance,
      onlyLevel: options.onlyLevel,
    });
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
