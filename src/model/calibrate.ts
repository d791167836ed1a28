/**
 * Conversion in two passes: the first without calibration gives a model that runs; it reads the calibration text and
 * counts how large the inputs of every expert are; the second quantises the experts again, weighing errors by that.
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
import {
  type Importance,
  type ImportanceSums,
  importanceOfRecord,
  loadImportance,
  meanImportance,
  saveImportance,
} from './importance.js';
import type { Architecture } from './manifest.js';
import { openMoe } from './read-moe.js';

/** Tokens of one sequence of the text, and of all: more of them change the means little. */
const SEQUENCE_TOKENS = 512;
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
  const saved = join(first, `importance-${textKey}.json`);
  const valueCount = moeLayerCount * architecture.expertCount * (architecture.hiddenSize + architecture.expertSize);
  let importance = await loadImportance(saved, valueCount);
  if (importance === undefined) {
    importance = await measure(options, first, text, architecture, moeLayerIndex, valueCount);
    await saveImportance(saved, importance);
  }
  const measured = importance;
  await convert({
    ...plain,
    calibration: {
      importance: (layer, expert) =>
        importanceOfRecord(measured, architecture, moeLayerIndex[layer]! * architecture.expertCount + expert),
      tokens: measured.tokens,
      text: basename(textPath),
      key: textKey,
    },
  });
  await rm(first, { recursive: true, force: true });
}

/** Runs the model over the text and takes the means of every expert's inputs. */
async function measure(
  options: CalibratedConvertOptions,
  modelPath: string,
  text: string,
  architecture: Architecture,
  moeLayerIndex: readonly number[],
  valueCount: number,
): Promise<Importance> {
  const tokenizer = await options.loadTextModel(modelPath);
  const ids = tokenizer.encode(text).slice(0, TOKENS_MAX);
  const settings = options.threads === undefined ? {} : { threads: String(options.threads) };
  // Without MOESTRO_* variables: what is measured must not depend on how the model will be served.
  const engine = await options.startEngine(engineConfig(modelPath, settings, {}));
  try {
    const length = Math.min(SEQUENCE_TOKENS, engine.info.contextLength - 1);
    await engine.collectImportance(true);
    for (let first = 0; first < ids.length; first += length) {
      const promptIds = ids.slice(first, first + length);
      // One token is asked for because a request must end; the prompt is what is measured.
      const request = { promptIds, maxTokens: 1, stopTokenIds: [], sampling: GREEDY };
      for await (const event of engine.generate(request)) if (event.kind === 'finish') break;
      options.onTokens?.(first + promptIds.length, ids.length);
    }
    const values = new Float32Array(valueCount);
    const { hiddenSize, expertSize, expertCount } = architecture;
    const perLayer = expertCount * (hiddenSize + expertSize);
    for (const [layer, index] of moeLayerIndex.entries()) {
      if (index < 0) continue;
      const sums: ImportanceSums[] = [];
      for (let expert = 0; expert < expertCount; expert++) sums.push(await engine.importance(layer, expert));
      meanImportance(sums, hiddenSize, expertSize, values.subarray(index * perLayer, (index + 1) * perLayer));
    }
    return { tokens: ids.length, values };
  } finally {
    await engine.close();
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
