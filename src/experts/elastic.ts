/**
 * Levels in mode `elastic`: as `routed`, but a bit that is resident costs nothing, and a missing one what reading it
 * costs now. For each expert the level is the one that makes loss plus price least over all tokens of the step that
 * chose it, s * sum(w^2) * error[b] + p * missing bits; so an expert that many tokens want is read at more bits, and
 * once. Never below the floor of a token, which depends on the request alone.
 *
 * With thresholds t on the weight at the floor's price, a step up is worth it at share q of that price exactly where
 * sum(w^2) >= q * t^2: one comparison a level, as in precision.ts.
 */
import type { Routing } from './plan.js';
import { chooseLevels, type LevelPolicy } from './precision.js';

/** What is in memory, or on its way there, by expert key. */
export interface HeldBits {
  readonly residentBits: Uint8Array;
  readonly readingBits: Uint8Array;
}

/** Working memory for one layer, made at start. */
export interface ElasticScratch {
  /** By expert: sum of squared weights of the tokens of elastic requests, and the level of all of them. */
  readonly squares: Float64Array;
  readonly level: Uint8Array;
}

export const createElasticScratch = (experts: number): ElasticScratch => ({
  squares: new Float64Array(experts),
  level: new Uint8Array(experts),
});

/** Adds one token of an elastic request to what its layer wants; `out` takes its floors. */
export function addElastic(policy: LevelPolicy, routing: Routing, token: number, scratch: ElasticScratch): void {
  const { layer, ids, weights, topK, levels } = routing;
  chooseLevels(policy, layer, weights, topK, token, levels);
  for (let at = token * topK; at < (token + 1) * topK; ++at) {
    const expert = ids[at]!;
    scratch.squares[expert] = scratch.squares[expert]! + weights[at]! * weights[at]!;
    if (levels[at]! > scratch.level[expert]!) scratch.level[expert] = levels[at]!;
  }
}

/**
 * Raises the levels of one token to what its experts run at: the highest floor of the step, what is held, or what is
 * worth its price. After every token of the layer was added.
 *
 * @param price of a missing bit as a share of the floor's price, 0 to 1.
 */
export function raiseElastic(
  policy: LevelPolicy,
  price: number,
  routing: Routing,
  token: number,
  held: HeldBits,
  firstKey: number,
  scratch: ElasticScratch,
): void {
  const { layer, ids, topK, levels: out } = routing;
  const { levels, thresholds } = policy;
  const steps = levels.length - 1;
  for (let at = token * topK; at < (token + 1) * topK; ++at) {
    const expert = ids[at]!;
    let level = Math.max(
      out[at]!,
      scratch.level[expert]!,
      held.residentBits[firstKey + expert]!,
      held.readingBits[firstKey + expert]!,
    );
    let step = 0;
    while (step < steps && scratch.squares[expert]! >= price * thresholds[layer * steps + step]! ** 2) ++step;
    if (levels[step]! > level) level = levels[step]!;
    out[at] = level;
  }
}
