/**
 * Conversion in two passes: the first without calibration gives a model that runs; it reads the calibration text and
 * counts what inputs every expert sees; the second quantises the experts again, so that errors cancel on such inputs.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { engineConfig } from '../config.js';
import { type EngineClient, type EngineConfig, GREEDY } from '../engine/types.js';
import { MoestroError } from '../errors.js';
import type { TextModel } from '../text/types.js';
import { type ConvertOptions, convert, fingerprint } from './convert.js';
import { type ExpertImportance, ImportanceFile, importanceWidth, meanImportance } from './importance.js';
import { type Architecture, DEFAULT_TABLES, FEEDBACK_TABLES } from './manifest.js';
import { openMoe } from './read-moe.js';

/** Tokens of one sequence of the text, short enough for any model's training, and of all: more change little. */
const SEQUENCE_TOKENS = 256;
const TOKENS_MAX = 65_536;

export interface CalibratedConvertOptions extends Omit<ConvertOptions, 'calibration'> {
  /** The calibration text, UTF-8. */
  readonly textPath: string;
  /** Called while the model reads the text. */
  readonly onTokens?: (done: number, total: number) => void;
  /** Make an engine and a tokenizer of a model directory: handed in, since models know nothing of engines. */
  readonly startEngine: (config: EngineConfig) => Promise<EngineClient>;
  readonly loadTextModel: (path: string) => Promise<TextModel>;
}

/**
 * Converts with an importance matrix. Needs disk space for the model twice, below `OUT.uncalibrated-*` until it is
 * done. Killed at any point, the same call goes on from there.
 *
 * @throws {MoestroError} as `convert`; INVALID_CONFIG when the text is empty; IO_ERROR when it cannot be read; what
 * the engine throws when the model does not run in this machine's memory.
 */
export async function convertCalibrated(options: CalibratedConvertOptions): Promise<void> {
  const out = resolve(options.out);
  if (existsSync(out) && options.force !== true)
    throw new MoestroError('OUTPUT_EXISTS', `Cannot write "${options.out}": it exists; use --force to replace it`);
  const text = await readText(options.textPath);
  const textKey = createHash('sha256').update(text).digest('hex').slice(0, 16);
  const sourceKey = createHash('sha256')
    .update(`${await fingerprint(options.source)} ${options.bits ?? 'default'} ${options.denseBits ?? 'default'}`)
    .digest('hex');
  const first = `${out}.uncalibrated-${sourceKey.slice(0, 8)}`;
  const { textPath, onTokens, startEngine, loadTextModel, ...plain } = options;
  if (!existsSync(join(first, 'manifest.json'))) await convert({ ...plain, out: first, force: false });

  const { manifest, moeLayerIndex, moeLayerCount } = await openMoe(first);
  const { architecture } = manifest;
  const saved = join(first, `importance-${textKey}.bin`);
  const records = moeLayerCount * architecture.expertCount;
  let importance = await ImportanceFile.open(saved, architecture, records);
  if (importance === undefined) {
    await measure(options, first, text, architecture, moeLayerIndex, saved);
    importance = await ImportanceFile.open(saved, architecture, records);
  }
  if (importance === undefined)
    throw new MoestroError('IO_ERROR', `Cannot read "${saved}": it does not hold what was written`, { path: saved });
  const measured = importance;
  try {
    await convert({
      ...plain,
      calibration: {
        importance: (layer, expert) => measured.read(moeLayerIndex[layer]! * architecture.expertCount + expert),
        tokens: measured.tokens,
        text: basename(textPath),
        // Squares only weigh errors: codes stay the nearest.
        tables: measured.width > 1 ? FEEDBACK_TABLES : DEFAULT_TABLES,
        key: textKey,
      },
    });
  } finally {
    measured.close();
  }
  await rm(first, { recursive: true, force: true });
}

/** Runs the model over the text and saves the means of every expert's inputs. */
async function measure(
  options: CalibratedConvertOptions,
  modelPath: string,
  text: string,
  architecture: Architecture,
  moeLayerIndex: readonly number[],
  saved: string,
): Promise<void> {
  const tokenizer = await options.loadTextModel(modelPath);
  const ids = tokenizer.encode(text).slice(0, TOKENS_MAX);
  const settings = options.threads === undefined ? {} : { threads: String(options.threads) };
  // Without MOESTRO_* variables: what is measured must not depend on how the model will be served.
  const engine = await options.startEngine(engineConfig(modelPath, settings, {}));
  try {
    const length = Math.min(SEQUENCE_TOKENS, engine.info.contextLength - 1);
    const width = importanceWidth(architecture);
    await engine.collectImportance(true, width);
    for (let first = 0; first < ids.length; first += length) {
      const promptIds = ids.slice(first, first + length);
      // One token is asked for because a request must end; the prompt is what is measured.
      const request = { promptIds, maxTokens: 1, stopTokenIds: [], sampling: GREEDY };
      for await (const event of engine.generate(request)) if (event.kind === 'finish') break;
      options.onTokens?.(first + promptIds.length, ids.length);
    }
    const columns = architecture.hiddenSize + architecture.expertSize;
    const bytes = moeLayerIndex.filter((index) => index >= 0).length * architecture.expertCount * columns * width * 4;
    await ImportanceFile.write(saved, ids.length, width, bytes, means(engine, architecture, moeLayerIndex, width));
  } finally {
    await engine.close();
  }
}

/** The experts of one layer after the other, in the order of experts.bin. */
async function* means(
  engine: EngineClient,
  { expertCount }: Architecture,
  moeLayerIndex: readonly number[],
  width: number,
): AsyncGenerator<ExpertImportance[]> {
  for (const [layer, index] of moeLayerIndex.entries()) {
    if (index < 0) continue;
    const sums = [];
    for (let expert = 0; expert < expertCount; expert++) sums.push(await engine.importance(layer, expert));
    yield meanImportance(sums, width);
  }
}

async function readText(path: string): Promise<string> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new MoestroError('INVALID_CONFIG', `Cannot read "${path}": ${(cause as Error).message}`, { path }, cause);
  }
  if (text.trim() === '')
    throw new MoestroError('INVALID_CONFIG', `Cannot calibrate with "${path}": it holds no text`, { path });
  return text;
}
