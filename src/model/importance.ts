/** What calibration learns of one model: how large the inputs of every expert's columns are. */
import { readFile } from 'node:fs/promises';
import { MoestroError } from '../errors.js';
import { realDisk, replaceFile } from './disk.js';
import type { Architecture } from './manifest.js';

/**
 * Tokens' worth of the layer's mean that every expert starts from, so that one which the text seldom reached leans on
 * its neighbours instead of on a few tokens.
 */
const PRIOR_TOKENS = 32;

/** What the engine counted for one expert: sums of squared inputs per column. */
export interface ImportanceSums {
  readonly tokens: number;
  readonly gateUp: Float32Array;
  readonly down: Float32Array;
}

/** Mean squared inputs of all experts of the layers that have any: float32 [expert record, hiddenSize + expertSize]. */
export interface Importance {
  readonly tokens: number;
  readonly values: Float32Array;
}

/**
 * Means of one layer's experts.
 *
 * @param sums one entry an expert.
 * @param out float32 [experts, hiddenSize + expertSize], filled.
 */
export function meanImportance(
  sums: readonly ImportanceSums[],
  hiddenSize: number,
  expertSize: number,
  out: Float32Array,
) {
  const width = hiddenSize + expertSize;
  const tokens = sums.reduce((sum, one) => sum + one.tokens, 0);
  const layerMean = new Float32Array(hiddenSize).fill(tokens === 0 ? 1 : 0);
  let downMean = tokens === 0 ? 1 : 0;
  if (tokens > 0) {
    for (const { gateUp, down } of sums) {
      for (let i = 0; i < hiddenSize; i++) layerMean[i]! += gateUp[i]! / tokens;
      for (let i = 0; i < expertSize; i++) downMean += down[i]! / tokens / expertSize;
    }
  }
  sums.forEach((one, expert) => {
    const weight = 1 / (one.tokens + PRIOR_TOKENS);
    for (let i = 0; i < hiddenSize; i++)
      out[expert * width + i] = (one.gateUp[i]! + PRIOR_TOKENS * layerMean[i]!) * weight;
    // Inner columns of different experts have nothing in common: the prior knows only their magnitude.
    for (let i = 0; i < expertSize; i++)
      out[expert * width + hiddenSize + i] = (one.down[i]! + PRIOR_TOKENS * downMean) * weight;
  });
}

/** Views of one expert's part. `record` is its place in experts.bin. */
export function importanceOfRecord(
  importance: Importance,
  architecture: Architecture,
  record: number,
): { gateUp: Float32Array; down: Float32Array } {
  const { hiddenSize, expertSize } = architecture;
  const start = record * (hiddenSize + expertSize);
  return {
    gateUp: importance.values.subarray(start, start + hiddenSize),
    down: importance.values.subarray(start + hiddenSize, start + hiddenSize + expertSize),
  };
}

/** Keeps the importance beside a conversion, so that a killed one need not calibrate again. */
export async function saveImportance(path: string, { tokens, values }: Importance): Promise<void> {
  const base64 = Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64');
  await replaceFile(realDisk, path, JSON.stringify({ tokens, values: base64 }));
}

/** Undefined when there is none or it has another size. */
export async function loadImportance(path: string, valueCount: number): Promise<Importance | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new MoestroError('IO_ERROR', `Cannot read "${path}": ${(cause as Error).message}`, { path }, cause);
  }
  try {
    const { tokens, values } = JSON.parse(text) as { tokens: number; values: string };
    const bytes = Buffer.from(values, 'base64');
    if (bytes.length !== valueCount * 4 || !Number.isInteger(tokens)) return undefined;
    return { tokens, values: new Float32Array(new Uint8Array(bytes).buffer) };
  } catch {
    return undefined; // not what saveImportance writes
  }
}
