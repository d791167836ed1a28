/**
 * Logits to the next token. Steps in this order: logit bias, penalties, the mask of a format, then greedy (temperature 0: the highest, the
 * lower id among equals) or temperature, min-p, top-k, top-p and one draw.
 *
 * Vocabularies have 150,000 tokens and few of them matter, so nothing is sorted: tokens far below the best are left out
 * first, and only as many of the rest are taken in order, from a heap, as top-k and top-p ask for.
 */
import type { TokenMask } from '../constrain/masks.js';
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
  /** Candidates as a heap, best first, and their weights. */
  readonly ids: Int32Array;
  readonly weights: Float64Array;

  constructor(vocabSize: number) {
    this.ids = new Int32Array(vocabSize);
    this.weights = new Float64Array(vocabSize);
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
   */
  sample(
    logits: Float32Array,
    tokens: readonly number[],
    allowed: Allowed | null = null,
    stops: ReadonlySet<number> = NO_STOPS,
  ): Sampled {
    const { topLogprobs } = this.#sampling;
    const logZ = topLogprobs === null ? 0 : logSumExp(logits);
    const best = topLogprobs === null ? [] : topTokens(logits, topLogprobs, logZ);
    // Bias and penalties touch few tokens; the chosen one's own logit is needed as the model gave it.
    const touched = new Map<number, number>();
    applyBias(logits, this.#sampling, touched);
    applyPenalties(logits, this.#sampling, tokens, touched);
    const first = allowed === null ? 0 : restrict(logits, allowed, stops);
    const drawn = this.#sampling.temperature > 0 ? this.#draw(logits) : argmax(logits);
    // Logits that are no numbers leave no best one: then the first that may stand here.
    const tokenId = logits[drawn]! > Number.NEGATIVE_INFINITY ? drawn : first;
    const raw = touched.get(tokenId) ?? logits[tokenId]!;
    return { tokenId, logprob: topLogprobs === null ? null : raw - logZ, topLogprobs: best };
  }

  #draw(logits: Float32Array): number {
    const { temperature, topK, topP, minP } = this.#sampling;
    const uniform = this.#random.next();
    const { ids, weights } = this.#scratch;
    const top = argmax(logits);
    const max = logits[top]!;
    if (!Number.isFinite(max)) return top;
    // min-p is a bound on the ratio to the best, so it only moves the cut.
    const cut = minP > 0 ? Math.min(CUT, -Math.log(minP)) : CUT;
    const threshold = max - cut * temperature;
    let count = 0;
    for (let id = 0; id < logits.length; ++id) if (logits[id]! >= threshold) ids[count++] = id;

    if (topK > 0 && topK < count) count = keepBest(logits, ids, count, topK);
    let total = 0;
    for (let i = 0; i < count; ++i) {
      weights[i] = Math.exp((logits[ids[i]!]! - max) / temperature);
      total += weights[i]!;
    }
    if (topP < 1) {
      // Best first until they hold the share; the heap's order makes what is kept exact.
      heapify(logits, ids, count);
      const wanted = topP * total;
      let kept = 0;
      let mass = 0;
      let left = count;
      while (left > 0 && (kept === 0 || mass < wanted)) {
        const id = pop(logits, ids, left--);
        // The popped place at the end of the heap holds what was taken: from the end backwards, best first.
        const weight = Math.exp((logits[id]! - max) / temperature);
        weights[left] = weight;
        mass += weight;
        ++kept;
      }
      let target = uniform * mass;
      for (let i = count - 1; i > count - kept; --i) {
        target -= weights[i]!;
        if (target < 0) return ids[i]!;
      }
      return ids[count - kept]!;
    }
    let target = uniform * total;
    for (let i = 0; i < count - 1; ++i) {
      target -= weights[i]!;
      if (target < 0) return ids[i]!;
    }
    return ids[count - 1]!;
  }
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

/** The highest logit's token, the lower id among equals. NaN never wins. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  let max = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; ++id) {
    if (logits[id]! > max) {
      max = logits[id]!;
      best = id;
    }
  }
  return best;
}

/** Takes all others out. Returns the lowest id that is left. */
function restrict(logits: Float32Array, { mask, mayEnd }: Allowed, stops: ReadonlySet<number>): number {
  const kept: [number, number][] = [];
  // Tokens that end the answer may be in the vocabulary as text too; whether they may stand here is not the mask's to say.
  for (const id of stops) if (mayEnd && id >= 0 && id < logits.length) kept.push([id, logits[id]!]);
  let first = kept[0]?.[0] ?? 0;
  if (mask.kind === 'few') {
    for (const id of mask.ids) if (id < logits.length && !stops.has(id)) kept.push([id, logits[id]!]);
    logits.fill(Number.NEGATIVE_INFINITY);
    first = kept[0]?.[0] ?? 0;
  } else {
    const { bits } = mask;
    for (let id = logits.length - 1; id >= 0; --id) {
      if ((bits[id >>> 5]! >>> (id & 31)) & 1) first = id;
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
  const max = logits[argmax(logits)]!;
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

/**
 * Moves the `count` best of ids[0 .. from), which ascend, to the front, the worst of them first; of equal ones the lower
 * ids are better. Returns count. The front is a heap with its worst on top, which few of the others are better than: a
 * heap of all 150,000 takes 3 ms to make.
 */
function keepBest(logits: Float32Array, ids: Int32Array, from: number, count: number): number {
  for (let root = (count >> 1) - 1; root >= 0; --root) siftDownWorst(logits, ids, root, count);
  for (let i = count; i < from; ++i) {
    if (!(logits[ids[i]!]! > logits[ids[0]!]!)) continue;
    ids[0] = ids[i]!;
    siftDownWorst(logits, ids, 0, count);
  }
  for (let left = count - 1; left > 0; --left) {
    const worst = ids[0]!;
    ids[0] = ids[left]!;
    ids[left] = worst;
    siftDownWorst(logits, ids, 0, left);
  }
  ids.subarray(0, count).reverse();
  return count;
}

function siftDownWorst(logits: Float32Array, ids: Int32Array, root: number, count: number): void {
  const id = ids[root]!;
  let at = root;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= count) break;
    if (child + 1 < count && isBetter(logits, ids[child]!, ids[child + 1]!)) ++child;
    if (!isBetter(logits, id, ids[child]!)) break;
    ids[at] = ids[child]!;
    at = child;
  }
  ids[at] = id;
}

const isBetter = (logits: Float32Array, a: number, b: number): boolean =>
  logits[a]! > logits[b]! || (logits[a]! === logits[b]! && a < b);

function heapify(logits: Float32Array, ids: Int32Array, count: number): void {
  for (let root = (count >> 1) - 1; root >= 0; --root) siftDown(logits, ids, root, count);
}

/** Takes the best of ids[0 .. count): it ends at ids[count - 1], the others stay a heap. */
function pop(logits: Float32Array, ids: Int32Array, count: number): number {
  const best = ids[0]!;
  ids[0] = ids[count - 1]!;
  ids[count - 1] = best;
  siftDown(logits, ids, 0, count - 1);
  return best;
}

function siftDown(logits: Float32Array, ids: Int32Array, root: number, count: number): void {
  const id = ids[root]!;
  let at = root;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= count) break;
    if (child + 1 < count && isBetter(logits, ids[child + 1]!, ids[child]!)) ++child;
    if (!isBetter(logits, ids[child]!, id)) break;
    ids[at] = ids[child]!;
    at = child;
  }
  ids[at] = id;
}
