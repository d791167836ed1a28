/**
 * How much does each layer mind fewer bits? Measured forward only: the divergence from the full level when one layer
 * alone runs low. What comes out is the manifest's `precision`, by which src/experts/precision.ts chooses levels.
 */
import { type EngineClient, GREEDY, type Precision, WEIGHT_BINS, WEIGHT_BINS_PER_OCTAVE } from '../engine/types.js';
import type { PrecisionProfile } from '../model/manifest.js';
import { rowOf } from './distribution.js';
import { klDivergence } from './divergence.js';

/** Sequences and tokens of each: the second half of a sequence counts, where its beginning is context. */
const SEQUENCES = 12;
const SEQUENCE_TOKENS = 256;
/** Quantiles kept of the importances. */
const IMPORTANCES = 256;
/** Levels that a layer is run down to. Below and above them the relative errors tell. */
const PROBED = [2, 3] as const;
/** A divergence of nothing at all would make a layer free of charge; beyond these the manifest is refused. */
const SENSITIVITY_RANGE = [1e-9, 1e9] as const;

export interface PrecisionSource {
  readonly engine: EngineClient;
  /** Calibration text as tokens: pieces of it from end to end are read. */
  readonly ids: readonly number[];
  /** Layers with experts. */
  readonly layerCount: number;
  readonly expertsPerToken: number;
  /** By level, of the manifest. */
  readonly relativeError: Readonly<Record<string, number>>;
  readonly onTokens?: (done: number, total: number) => void;
}

/** Runs at the engine's full level, which must be above 3 bits. Throws what the engine throws. */
export async function measurePrecision(source: PrecisionSource): Promise<PrecisionProfile> {
  const { engine, layerCount } = source;
  const sequences = pieces(source.ids, Math.min(SEQUENCE_TOKENS, engine.info.contextLength - 1));
  const runs = sequences.length * (2 + layerCount * PROBED.length);
  let done = 0;
  const ran = () => source.onTokens?.(++done * (sequences[0]?.length ?? 0), runs * (sequences[0]?.length ?? 0));

  await engine.collectImportance(true);
  for (const promptIds of sequences) {
    const precision: Precision = { mode: 'exact' };
    for await (const event of engine.generate({
      promptIds,
      maxTokens: 1,
      stopTokenIds: [],
      sampling: GREEDY,
      precision,
    }))
      if (event.kind === 'finish') break;
    ran();
  }
  const counts = await engine.routingWeights();
  await engine.collectImportance(false);

  const sums = PROBED.map(() => new Float64Array(layerCount));
  let positions = 0;
  for (const ids of sequences) {
    const from = ids.length >> 1;
    const full = await engine.evaluate(ids, { from, precision: { mode: 'exact' } });
    ran();
    positions += ids.length - from;
    for (let layer = 0; layer < layerCount; ++layer) {
      for (const [probe, level] of PROBED.entries()) {
        const precision = oneLayerAt(level, engine.info.level, layer, layerCount);
        const logits = await engine.evaluate(ids, { from, precision });
        sums[probe]![layer]! += divergences(full, logits, engine.info.vocabSize);
        ran();
      }
    }
  }
  const sensitivities = Array.from({ length: layerCount }, (_, layer) => {
    const mass = source.expertsPerToken * meanSquare(counts, layer);
    const logs = PROBED.map((level, probe) => {
      const error = source.relativeError[String(level)] ?? 1;
      return Math.log(clamp(sums[probe]![layer]! / positions / (mass * error), SENSITIVITY_RANGE));
    });
    return Number(Math.exp(logs.reduce((sum, value) => sum + value, 0) / logs.length).toPrecision(5));
  });
  return {
    tokens: sequences.length * (sequences[0]?.length ?? 0),
    sensitivities,
    importances: quantiles(counts, sensitivities),
  };
}

/** Non-overlapping pieces of one length, spread evenly over the text. */
function pieces(ids: readonly number[], length: number): (readonly number[])[] {
  const fitting = Math.floor(ids.length / length);
  const count = Math.min(SEQUENCES, fitting);
  if (count === 0) return [ids];
  return Array.from({ length: count }, (_, i) => {
    const first = Math.floor((i * fitting) / count) * length;
    return ids.slice(first, first + length);
  });
}

/** Every layer at the full level but one. */
function oneLayerAt(level: number, full: number, layer: number, layerCount: number): Precision {
  const thresholds = new Float32Array(layerCount);
  thresholds[layer] = Number.POSITIVE_INFINITY;
  return { policy: { levels: [level, full], thresholds } };
}

function divergences(full: Float32Array, other: Float32Array, vocabSize: number): number {
  let sum = 0;
  for (let row = 0; row < full.length / vocabSize; ++row) {
    sum += klDivergence(rowOf(full, row, vocabSize), rowOf(other, row, vocabSize));
  }
  return sum;
}

/** A weight in the middle of bin `bin`, geometrically. */
const weightOf = (bin: number): number => 2 ** (-(bin + 0.5) / WEIGHT_BINS_PER_OCTAVE);

/** Mean squared routing weight of a layer's (token, expert) pairs. */
function meanSquare(counts: Float64Array, layer: number): number {
  let sum = 0;
  let pairs = 0;
  for (let bin = 0; bin < WEIGHT_BINS; ++bin) {
    const count = counts[layer * WEIGHT_BINS + bin]!;
    sum += count * weightOf(bin) ** 2;
    pairs += count;
  }
  return pairs === 0 ? 1 : sum / pairs;
}

/** Quantiles of sensitivity * weight^2 over all layers' pairs. */
function quantiles(counts: Float64Array, sensitivities: readonly number[]): number[] {
  const all: { readonly value: number; readonly count: number }[] = [];
  counts.forEach((count, at) => {
    const value = sensitivities[Math.floor(at / WEIGHT_BINS)]! * weightOf(at % WEIGHT_BINS) ** 2;
    if (count > 0) all.push({ value, count });
  });
  all.sort((a, b) => a.value - b.value);
  const total = all.reduce((sum, { count }) => sum + count, 0);
  const out: number[] = [];
  let below = 0;
  for (const { value, count } of all) {
    below += count;
    while (out.length < IMPORTANCES && (out.length + 0.5) / IMPORTANCES <= below / total)
      out.push(Number(value.toPrecision(5)));
  }
  return out;
}

const clamp = (value: number, [least, most]: readonly [number, number]): number =>
  Math.min(most, Math.max(least, value));
