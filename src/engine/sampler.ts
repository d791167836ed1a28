/**
 * Logits to the next token. Steps in this order: logit bias, penalties, the mask of a format, then greedy (temperature 0: the highest, the
 * lower id among equals) or temperature, min-p, top-k, top-p and one draw.
 *
 * Vocabularies have 150,000 tokens and few of them matter: tokens far below the best are left out first, and only as many
 * of the rest are put in order as top-k and top-p ask for.
 */
import type { TokenMask } from '../constrain/masks.js';
import { type LogitScan, PLAIN_SCAN } from './logit-scan.js';
import { Random } from './random.js';
import type { PromptToken, Sampling, TokenLogprob } from './types.js';

/**
 * Tokens whose probability is below e^-30 times the best one's are never drawn: over 150,000 tokens that is 1.4e-8 of
 * the mass at most, less than what float32 logits leave uncertain.
 */
const CUT = 30;

export interface Sampled {
  readonly tokenId: number;
  /** Natural log of the model's probability, before bias, penalties and temperature; null unless asked for. */
  readonly logprob: number | null;
  readonly topLogprobs: readonly TokenLogprob[];
}

/** What a format leaves of the vocabulary, and whether the answer may end here. */
export interface Allowed {
  readonly mask: TokenMask;
  readonly mayEnd: boolean;
}

const NO_STOPS: ReadonlySet<number> = new Set();

/** Working memory for one vocabulary, shared by all sequences of an engine. */
export class SamplerScratch {
  /** Candidates, those of them that top-p kept, and their weights. */
  readonly ids: Int32Array;
  readonly kept: Int32Array;
  readonly weights: Float64Array;
  readonly scan: LogitScan;

  constructor(vocabSize: number, scan: LogitScan = PLAIN_SCAN) {
    this.ids = new Int32Array(vocabSize);
    this.kept = new Int32Array(vocabSize);
    this.weights = new Float64Array(vocabSize);
    this.scan = scan;
  }
}

/** One sequence's sampler: its settings and its random stream, one draw a token. */
export class Sampler {
  readonly #sampling: Sampling;
  readonly #scratch: SamplerScratch;
  readonly #random: Random;

  /** @param seed used where `sampling.seed` is null. */
  constructor(sampling: Sampling, seed: number, scratch: SamplerScratch) {
    this.#sampling = sampling;
    this.#scratch = scratch;
    this.#random = new Random(sampling.seed ?? seed);
  }

  /**
   * @param logits Float32Array [vocabSize]; changed in place by bias and penalties.
   * @param tokens prompt and answer so far.
   * @param allowed the only tokens that may be drawn, beside those of `stops` where the answer may end; null for all.
   * @param stops tokens that end the answer.
   * @param mayStop whether it is long enough to end. A format that leaves nothing but its end ends it all the same.
   */
  sample(
    logits: Float32Array,
    tokens: readonly number[],
    allowed: Allowed | null = null,
    stops: ReadonlySet<number> = NO_STOPS,
    mayStop = true,
  ): Sampled {
    const { topLogprobs } = this.#sampling;
    const logZ = topLogprobs === null ? 0 : logSumExp(logits);
    const best = topLogprobs === null ? [] : topTokens(logits, topLogprobs, logZ);
    // Bias and penalties touch few tokens; the chosen one's own logit is needed as the model gave it.
    const touched = new Map<number, number>();
    applyBias(logits, this.#sampling, touched);
    applyPenalties(logits, this.#sampling, tokens, touched);
    const first =
      allowed === null ? withhold(logits, mayStop ? NO_STOPS : stops) : restrict(logits, allowed, stops, mayStop);
    const drawn = this.#sampling.temperature > 0 ? this.#draw(logits) : this.#scratch.scan.largestLogit(logits);
    // Logits that are no numbers leave no best one: then the first that may stand here.
    const tokenId = logits[drawn]! > Number.NEGATIVE_INFINITY ? drawn : first;
    const raw = touched.get(tokenId) ?? logits[tokenId]!;
    return { tokenId, logprob: topLogprobs === null ? null : raw - logZ, topLogprobs: best };
  }

  #draw(logits: Float32Array): number {
    const { temperature, topK, topP, minP } = this.#sampling;
    const uniform = this.#random.next();
    const { ids, weights, scan } = this.#scratch;
    const top = scan.largestLogit(logits);
    const max = logits[top]!;
    if (!Number.isFinite(max)) return top;
    // min-p is a bound on the ratio to the best, so it only moves the cut.
    const cut = minP > 0 ? Math.min(CUT, -Math.log(minP)) : CUT;
    const least = max - cut * temperature;
    const count = scan.bestLogits(logits, least, topK, ids);
    let total = 0;
    for (let i = 0; i < count; ++i) {
      weights[i] = Math.exp((logits[ids[i]!]! - max) / temperature);
      total += weights[i]!;
    }
    if (topP < 1) return this.#drawShare(logits, max, least, count, topP * total, uniform);
    let target = uniform * total;
    for (let i = 0; i < count - 1; ++i) {
      target -= weights[i]!;
      if (target < 0) return ids[i]!;
    }
    return ids[count - 1]!;
  }

  /** Top-p: of the `count` best, as many as hold the mass that is `wanted`, best first; their order makes what is kept exact. */
  #drawShare(logits: Float32Array, max: number, least: number, count: number, wanted: number, uniform: number): number {
    const { ids, kept, weights, scan } = this.#scratch;
    const { temperature } = this.#sampling;
    let ordered = 0;
    if (count <= ORDERED_FIRST) {
      kept.set(ids.subarray(0, count));
      ordered = order(logits, kept, count);
    }
    let taken = 0;
    let mass = 0;
    while (taken < count && (taken === 0 || mass < wanted)) {
      if (taken === ordered) {
        const most = Math.min(count, ORDERED_FIRST + 8 * ordered);
        ordered = order(logits, kept, scan.bestLogits(logits, least, most, kept));
      }
      weights[taken] = Math.exp((logits[kept[taken]!]! - max) / temperature);
      mass += weights[taken++]!;
    }
    let target = uniform * mass;
    for (let i = 0; i < taken - 1; ++i) {
      target -= weights[i]!;
      if (target < 0) return kept[i]!;
    }
    return kept[taken - 1]!;
  }
}

/** Tokens that top-p puts in order at first: it seldom keeps more. */
const ORDERED_FIRST = 256;

/** Best first, lower ids first among equals. Returns count. */
function order(logits: Float32Array, ids: Int32Array, count: number): number {
  ids.subarray(0, count).sort((a, b) => logits[b]! - logits[a]! || a - b);
  return count;
}

/**
 * What the model thought of a token that is known already.
 *
 * @param logits Float32Array [vocabSize] before that token; not changed.
 * @param count alternatives to tell.
 */
export function tokenLogprobs(logits: Float32Array, tokenId: number, count: number): PromptToken {
  const logZ = logSumExp(logits);
  return { tokenId, logprob: logits[tokenId]! - logZ, topLogprobs: topTokens(logits, count, logZ) };
}

/** Takes these out. Returns the lowest id that is left. */
function withhold(logits: Float32Array, ids: ReadonlySet<number>): number {
  for (const id of ids) if (id >= 0 && id < logits.length) logits[id] = Number.NEGATIVE_INFINITY;
  let first = 0;
  while (ids.has(first) && first < logits.length - 1) ++first;
  return first;
}

const holds = (mask: TokenMask, id: number): boolean =>
  mask.kind === 'few' ? mask.ids.includes(id) : ((mask.bits[id >>> 5]! >>> (id & 31)) & 1) === 1;

/** Whether a mask of many holds a token that does not end the answer. One of the first few does: this ends at once. */
function goesOn(mask: TokenMask, stops: ReadonlySet<number>, vocabSize: number): boolean {
  for (let id = 0; id < vocabSize; ++id) if (holds(mask, id) && !stops.has(id)) return true;
  return false;
}

/** Takes all others out. Returns the lowest id that is left, but of few one that ends the answer first. */
function restrict(
  logits: Float32Array,
  { mask, mayEnd }: Allowed,
  stops: ReadonlySet<number>,
  mayStop: boolean,
): number {
  const kept: [number, number][] = [];
  if (mask.kind === 'few') {
    for (const id of mask.ids) if (id < logits.length && !stops.has(id)) kept.push([id, logits[id]!]);
  }
  const going = kept.length;
  // Tokens that end the answer may be in the vocabulary as text too. Whether they may stand here is not the mask's to say,
  // unless it leaves nothing else: then the answer ends within its format, since it cannot go on.
  const mustStop = mask.kind === 'few' ? going === 0 : !goesOn(mask, stops, logits.length);
  for (const id of stops) {
    if (id < 0 || id >= logits.length) continue;
    if (mayEnd ? mayStop || mustStop : mustStop && holds(mask, id)) kept.push([id, logits[id]!]);
  }
  let first = (kept[going] ?? kept[0])?.[0] ?? 0;
  if (mask.kind === 'few') {
    logits.fill(Number.NEGATIVE_INFINITY);
  } else {
    const { bits } = mask;
    for (let id = logits.length - 1; id >= 0; --id) {
      if ((bits[id >>> 5]! >>> (id & 31)) & 1) first = stops.has(id) ? first : id;
      else logits[id] = Number.NEGATIVE_INFINITY;
    }
    for (const id of stops) if (id >= 0 && id < logits.length) logits[id] = Number.NEGATIVE_INFINITY;
  }
  for (const [id, logit] of kept) logits[id] = logit;
  return first;
}

function applyBias(logits: Float32Array, sampling: Sampling, touched: Map<number, number>): void {
  for (const [id, bias] of sampling.logitBias) {
    if (id < 0 || id >= logits.length) continue;
    if (!touched.has(id)) touched.set(id, logits[id]!);
    logits[id] = logits[id]! + bias;
  }
}

/** Repetition divides positive and multiplies negative logits; presence and frequency subtract, per token and per use. */
function applyPenalties(
  logits: Float32Array,
  sampling: Sampling,
  tokens: readonly number[],
  touched: Map<number, number>,
): void {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, penaltyWindow } = sampling;
  if (repetitionPenalty === 1 && presencePenalty === 0 && frequencyPenalty === 0) return;
  const counts = new Map<number, number>();
  for (let i = Math.max(0, tokens.length - penaltyWindow); i < tokens.length; ++i) {
    counts.set(tokens[i]!, (counts.get(tokens[i]!) ?? 0) + 1);
  }
  for (const [id, count] of counts) {
    const logit = logits[id];
    if (logit === undefined) continue;
    if (!touched.has(id)) touched.set(id, logit);
    const repeated = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
    logits[id] = repeated - presencePenalty - count * frequencyPenalty;
  }
}

function logSumExp(logits: Float32Array): number {
  const max = logits[PLAIN_SCAN.largestLogit(logits)]!;
  let sum = 0;
  for (let id = 0; id < logits.length; ++id) {
    const below = logits[id]! - max;
    if (below > -CUT * 2) sum += Math.exp(below);
  }
  return max + Math.log(sum);
}

function topTokens(logits: Float32Array, count: number, logZ: number): TokenLogprob[] {
  const best: number[] = [];
  for (let id = 0; id < logits.length; ++id) {
    if (best.length === count && (count === 0 || logits[id]! <= logits[best[count - 1]!]!)) continue;
    let at = best.length < count ? best.length : count - 1;
    while (at > 0 && logits[id]! > logits[best[at - 1]!]!) {
      best[at] = best[at - 1]!;
      --at;
    }
    best[at] = id;
  }
  return best.map((tokenId) => ({ tokenId, logprob: logits[tokenId]! - logZ }));
}
