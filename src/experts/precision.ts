/**
 * At how many bits does a token want each of its experts? A deterministic function of the request alone: what it asks
 * for and its routing weights, never of what happens to be resident.
 *
 * An expert of routing weight w at level b adds about s * w^2 * error[b] to the divergence from the full model: s is the
 * layer's sensitivity, measured by calibration, error[b] the level's relative squared error. With one price a bit for
 * the whole request, the level that makes loss plus price least is the best use of any sum of bits. Loss grows with w,
 * so per layer that choice comes down to ascending thresholds on w, computed when the request begins.
 */
import type { PrecisionProfile } from '../model/manifest.js';
import { nominalWeights } from './nominal-weights.js';

/** What one request runs at, ready to be looked up. */
export interface LevelPolicy {
  /** Ascending. */
  readonly levels: readonly number[];
  /**
   * [MoE layers, levels - 1], ascending within a layer: a weight that reaches threshold i runs at level i + 1 or above.
   * Empty when there is one level.
   */
  readonly thresholds: Float32Array;
  /** These levels are floors: what is resident, or worth its price, comes on top (elastic.ts). */
  readonly isElastic?: boolean;
}

/** Everything that turns a number of bits into a policy: facts of the model at the engine's full level. */
export interface PrecisionModel {
  /** Ascending, up to the full level. */
  readonly levels: readonly number[];
  /** Relative squared error at each of them. */
  readonly errors: readonly number[];
  /** By MoE layer. */
  readonly sensitivities: readonly number[];
  /** s * w^2 of (layer, token, expert) triples that stand for the traffic to come. */
  readonly importances: readonly number[];
}

/** Relative squared errors of the nested format, for models whose manifest has none. */
const TYPICAL_ERRORS: Readonly<Record<string, number>> = { 2: 0.093, 3: 0.022, 4: 0.0049, 8: 0.00008 };

/** Mean bits of `routed` requests that name no number, where the full level allows. */
export const DEFAULT_MEAN_BITS = 3;

/** @param architecture of the model, @param layerCount those of its layers that have experts. */
export function precisionModel(
  levels: readonly number[],
  full: number,
  relativeError: Readonly<Record<string, number>>,
  profile: PrecisionProfile | null,
  architecture: { readonly expertCount: number; readonly topK: number; readonly normTopK: boolean },
  layerCount: number,
): PrecisionModel {
  const own = levels.filter((level) => level <= full).sort((a, b) => a - b);
  return {
    levels: own,
    errors: own.map((level) => relativeError[String(level)] ?? TYPICAL_ERRORS[String(level)]!),
    sensitivities: profile?.sensitivities ?? new Array<number>(layerCount).fill(1),
    importances: profile?.importances ?? nominalWeights(architecture).map((weight) => weight * weight),
  };
}

/** Every expert at one level. */
export const fixedLevel = (level: number): LevelPolicy => ({ levels: [level], thresholds: new Float32Array(0) });

/**
 * The policy that comes to `bits` a weight in the mean over the traffic the model was calibrated for; what a request
 * really took is in its usage. Bits beyond the levels give the nearest level throughout.
 */
export function policyOfBits(model: PrecisionModel, bits: number): LevelPolicy {
  return policyOfPrice(model, priceOfBits(model, bits));
}

/** @param price of a bit, in units of sensitivity: 0 gives the full level, Infinity the lowest. */
export function policyOfPrice(model: PrecisionModel, price: number): LevelPolicy {
  const { levels, sensitivities } = model;
  const gains = stepGains(model);
  const thresholds = new Float32Array(sensitivities.length * gains.length);
  sensitivities.forEach((sensitivity, layer) => {
    gains.forEach((gain, step) => {
      thresholds[layer * gains.length + step] = Math.sqrt(price / (sensitivity * gain));
    });
  });
  return { levels, thresholds };
}

/** Where errors do not fall: above zero, so that price 0 still means the full level. */
const LEAST_GAIN = 1e-30;

/**
 * Error saved per bit by each step from a level to the next, descending: where a later step saves more than the one
 * before it, both are one step, and the level between them is never the best.
 */
function stepGains({ levels, errors }: PrecisionModel): number[] {
  const gains: number[] = [];
  for (let from = 0; from + 1 < levels.length; ) {
    let best = LEAST_GAIN;
    let to = levels.length - 1;
    for (let next = from + 1; next < levels.length; ++next) {
      const gain = (errors[from]! - errors[next]!) / (levels[next]! - levels[from]!);
      if (gain <= best) continue;
      best = gain;
      to = next;
    }
    for (; from < to; ++from) gains.push(best);
  }
  return gains;
}

/** What a bit of the plane up to each level adds, by level: the first against no expert at all. */
export function planeGains({ levels, errors }: PrecisionModel): number[] {
  return levels.map(
    (level, i) => ((i === 0 ? 1 : errors[i - 1]!) - errors[i]!) / (level - (i === 0 ? 0 : levels[i - 1]!)),
  );
}

/** Halvings of the price's range: a factor of 2^200 comes down to one part in 10^13. */
const PRICE_STEPS = 50;
const PRICE_SPAN = 2 ** 100;

function priceOfBits(model: PrecisionModel, bits: number): number {
  const { levels, importances } = model;
  if (!(bits > levels[0]!)) return Number.POSITIVE_INFINITY;
  if (bits >= levels.at(-1)!) return 0;
  const gains = stepGains(model);
  const meanBits = (price: number): number => {
    let sum = 0;
    for (const importance of importances) {
      let step = 0;
      while (step < gains.length && importance * gains[step]! >= price) ++step;
      sum += levels[step]!;
    }
    return sum / importances.length;
  };
  // Geometric means by square roots alone: the same price on every machine.
  let low = 1 / PRICE_SPAN;
  let high = PRICE_SPAN;
  for (let i = 0; i < PRICE_STEPS; ++i) {
    const middle = Math.sqrt(low) * Math.sqrt(high);
    if (meanBits(middle) > bits) low = middle;
    else high = middle;
  }
  return high;
}

/**
 * Levels of one token's experts in one layer.
 *
 * @param layer index among the MoE layers.
 * @param weights routing weights Float32Array [tokens, topK]; one that is no number gets the lowest level.
 * @param token row of `weights` and of `out`.
 * @param out Uint8Array [tokens, topK], filled at the token's row.
 */
export function chooseLevels(
  policy: LevelPolicy,
  layer: number,
  weights: Float32Array,
  topK: number,
  token: number,
  out: Uint8Array,
): void {
  const { levels, thresholds } = policy;
  const steps = levels.length - 1;
  const first = layer * steps;
  for (let at = token * topK; at < (token + 1) * topK; ++at) {
    const weight = weights[at]!;
    let step = 0;
    while (step < steps && weight >= thresholds[first + step]!) ++step;
    out[at] = levels[step]!;
  }
}

/** The level below `full`; `full` when there is none. */
export function nextLevel(levels: readonly number[], full: number): number {
  return levels.reduce((next, level) => (level < full && (next === full || level > next) ? level : next), full);
}
