/**
 * What is an expert worth keeping for? The logarithm of E[decay^(turns until its next use)], estimated for every expert
 * that holds slots each time its layer has its turn.
 *
 * The estimate is a logistic regression over what is known of the expert:
 * - uses decayed with half-lives of 2, 8, 32 and 128 tokens, as logarithms: frequency at four time scales,
 * - turns since the last use, and whether that was this turn or the one before: recency,
 * - what followed the earlier tokens that were routed like this one (similar-tokens.ts): context.
 *
 * Its weights start from what models have in common (`WEIGHTS`) and follow what the run shows (online-weights.ts).
 *
 * `decay` follows the cache: an expert stays for capacity / misses turns in the mean (Little's law), and a use beyond that is
 * not worth waiting for. Ranking victims by a model of recency and frequency: FlashMoE, arXiv:2601.17063.
 */
import { OnlineWeights } from './online-weights.js';
import { SimilarTokens } from './similar-tokens.js';

const HALF_LIVES = [2, 8, 32, 128] as const;
const SCALES = HALF_LIVES.length;
const AGE_MAX = 1023;
/** Turns of a prompt chunk that counts are decayed by at most: one prompt must not wipe what decoding used. */
const CHUNK_TURNS = 16;
/** Examples begun a layer and turn. */
const EXAMPLES = 4;
/** Tokens after which decayed counts are scaled down: the shortest half-life reaches 2^100 by then, of a float's 2^127. */
const RESCALE_TOKENS = 100 * HALF_LIVES[0];

/**
 * Weights of uses (4), age, used in this turn, used last in the turn before, followed at once, followed soon, and 1: at a
 * stay of e^1.5 turns in the cache, and what a factor e^1.5 in it adds. Fitted by bench/reuse-weights.ts.
 */
const WEIGHTS: readonly number[] = [0.28, 0.28, 0.26, 0, -0.46, 0.77, 0.23, 0.27, 0.26, -1.55];
const BY_STAY: readonly number[] = [-0.16, 0.07, -0.13, 0.12, 0.18, -0.51, -0.19, -0.28, 0.04, 1.12];
const STAY = 1.5;
/** Stays beyond those that the weights were fitted for are taken for the nearest that were. */
const STAY_LEAST = -1.5;
const STAY_MOST = 2;

/** The logarithm of a stay in turns, as BY_STAY counts it. */
export const stayOver = (stay: number): number => Math.min(STAY_MOST, Math.max(STAY_LEAST, Math.log(stay) / STAY - 1));

export const FEATURES = SCALES + 6;

const TABLE = 4096;
/** Logarithms of shares from 0 to 1, shifted so that usual values lie around 0. */
const LOG_USE = Float32Array.from({ length: TABLE + 1 }, (_, i) => Math.log(i / TABLE + 0.004) + 3);
const LOG_GUESS = Float32Array.from({ length: TABLE + 1 }, (_, i) => Math.log(i / TABLE + 0.03) + 2);
const LOG_AGE = Float32Array.from({ length: AGE_MAX + 1 }, (_, age) => 2 - Math.log(1 + age));
const shareIndex = (share: number): number => (share >= 1 ? TABLE : (share * TABLE) | 0);

export interface ReuseShape {
  readonly layers: number;
  readonly experts: number;
  readonly topK: number;
  /** Sequences of one step at most. */
  readonly rows: number;
}

/** Weights of the features, and what they change by with the logarithm of the stay: {@link FEATURES} numbers each. */
export interface ReuseWeights {
  readonly base: readonly number[];
  readonly byStay: readonly number[];
}

/** What one layer of one step routed to. */
export interface RoutedLayer {
  readonly layer: number;
  readonly tokens: number;
  readonly topK: number;
  /** Uint16Array [tokens, topK], rows one after another. */
  readonly ids: Uint16Array;
}

export class ReuseModel {
  /** By expert key: log of the expected use; only those of experts that hold slots are up to date. */
  readonly worth: Float32Array;
  /** Told the features of every expert that is valued, Float64Array [FEATURES]; for fitting weights. */
  onValued: ((key: number, features: Float64Array) => void) | null = null;
  readonly #layers: number;
  readonly #experts: number;
  readonly #prior: ReuseWeights;
  readonly #similar: SimilarTokens;
  readonly #soon: Float32Array;
  readonly #later: Float32Array;
  /** [key][scale]: uses times 2^(tokens at the use / half-life), so that nothing is to be done as time goes by. */
  readonly #uses: Float32Array;
  /** Tokens seen at the last use, by key. */
  readonly #lastUse: Int32Array;
  readonly #weights = new Float64Array(FEATURES);
  readonly #features = new Float64Array(FEATURES);
  /** What one use now adds, and what turns a sum into a share. */
  readonly #added = new Float64Array(SCALES);
  readonly #norms = new Float64Array(SCALES);
  #rows = 0;
  #steps = 0;
  #tokens = 0;
  /** #tokens at which a use adds 1. */
  #origin = 0;
  #isDecode = true;
  #stay = 1;
  #missesPerTurn: number;
  #turnMisses = 0;
  #decodeTurns = 0;
  readonly #online: OnlineWeights;
  #seed = 12345;

  constructor({ layers, experts, topK, rows }: ReuseShape, weights: ReuseWeights = { base: WEIGHTS, byStay: BY_STAY }) {
    const keys = layers * experts;
    this.#layers = layers;
    this.#experts = experts;
    this.#prior = weights;
    this.worth = new Float32Array(keys);
    this.#similar = new SimilarTokens(layers, experts, topK, rows);
    this.#soon = new Float32Array(experts);
    this.#later = new Float32Array(experts);
    this.#uses = new Float32Array(keys * SCALES);
    this.#lastUse = new Int32Array(keys).fill(-AGE_MAX);
    this.#online = new OnlineWeights(FEATURES, keys);
    this.#missesPerTurn = layers * topK * 0.4;
  }

  /** Turns that an expert stays in the mean, as far as is known. */
  get stay(): number {
    return this.#stay;
  }

  /**
   * A step begins.
   *
   * @param rows sequences of the step; streamIds tell them apart from step to step, rowTokens how far each goes.
   * @param capacity experts that all slots hold.
   */
  beginStep(rows: number, streamIds: ArrayLike<number>, rowTokens: ArrayLike<number>, capacity: number): void {
    if (this.#steps > 0 && this.#isDecode) {
      this.#missesPerTurn += Math.max(0.02, 1 / ++this.#decodeTurns) * (this.#turnMisses - this.#missesPerTurn);
    }
    let longest = 1;
    for (let row = 0; row < rows; ++row) longest = Math.max(longest, rowTokens[row]!);
    this.#similar.beginStep(rows, streamIds, rowTokens);
    this.#rows = rows;
    this.#turnMisses = 0;
    this.#isDecode = longest === 1;
    ++this.#steps;
    this.#tokens += Math.min(longest, CHUNK_TURNS);
    if (this.#tokens - this.#origin > RESCALE_TOKENS) this.#rescale();
    this.#stay = Math.max(0.7, capacity / Math.max(0.001, this.#missesPerTurn));
    for (let scale = 0; scale < SCALES; ++scale) {
      const halfLife = HALF_LIVES[scale]!;
      this.#added[scale] = 2 ** ((this.#tokens - this.#origin) / halfLife);
      const whole = (1 - 2 ** (-this.#tokens / halfLife)) / (1 - 2 ** (-1 / halfLife));
      this.#norms[scale] = 1 / (this.#added[scale]! * whole);
    }
    const above = stayOver(this.#stay);
    for (let i = 0; i < FEATURES; ++i)
      this.#weights[i] = this.#prior.base[i]! + above * this.#prior.byStay[i]! + this.#online.deltas[i]!;
    this.#online.expire(this.#steps, Math.ceil(3 * this.#stay) + 1, this.#weights);
  }

  /**
   * A layer was routed, and its slots have not changed hands yet: counts what was used and values the layer anew.
   *
   * @param residentBits by key: 0 for an expert that holds no slots.
   */
  observe(routed: RoutedLayer, residentBits: Uint8Array, capacity: number): void {
    // Where everything fits nothing is ever evicted: there is no choice to be made, and no time to spend on it.
    if (capacity >= this.#layers * this.#experts) return;
    const { layer } = routed;
    const first = layer * this.#experts;
    const chance = (EXAMPLES * this.#layers) / Math.max(1, capacity);
    this.#use(routed, first, residentBits);
    this.#similar.append(layer, routed.ids);
    this.#similar.guess(layer, Math.exp(-1 / this.#stay), this.#soon, this.#later);
    for (let expert = 0; expert < this.#experts; ++expert) {
      const key = first + expert;
      if (residentBits[key] === 0 && this.#lastUse[key] !== this.#tokens) continue;
      this.#describe(key, expert);
      let z = 0;
      for (let i = 0; i < FEATURES; ++i) z += this.#weights[i]! * this.#features[i]!;
      this.worth[key] = z > 30 ? 0 : z - Math.log1p(Math.exp(z));
      this.onValued?.(key, this.#features);
      if (this.#isDecode && !this.#online.isUnderWay(key) && this.#draw() < chance) {
        this.#online.begin(key, this.#steps, this.#features);
      }
    }
  }

  /** Counts the uses of the step, each `age` tokens before the newest of its row. */
  #use(routed: RoutedLayer, first: number, residentBits: Uint8Array): void {
    const { ids, topK, tokens } = routed;
    const perRow = Math.max(1, Math.floor(tokens / Math.max(1, this.#rows)));
    for (let token = 0; token < tokens; ++token) {
      // Rows of a chunk are of one length but for the last steps of a prompt: near enough for an age.
      const age = this.#isDecode ? 0 : perRow - 1 - (token % perRow);
      for (let at = token * topK; at < (token + 1) * topK; ++at) {
        const key = first + ids[at]!;
        const usedAt = this.#tokens - age;
        if (this.#lastUse[key] !== this.#tokens && residentBits[key] === 0) ++this.#turnMisses;
        this.#online.used(key, this.#steps, this.#stay, this.#weights, this.#isDecode);
        if (usedAt > this.#lastUse[key]!) this.#lastUse[key] = usedAt;
        if (age > CHUNK_TURNS) continue;
        for (let scale = 0; scale < SCALES; ++scale) {
          const use = key * SCALES + scale;
          const share = age === 0 ? 1 : 2 ** (-age / HALF_LIVES[scale]!);
          this.#uses[use] = this.#uses[use]! + share * this.#added[scale]!;
        }
      }
    }
  }

  #describe(key: number, expert: number): void {
    const features = this.#features;
    for (let scale = 0; scale < SCALES; ++scale) {
      features[scale] = LOG_USE[shareIndex(this.#uses[key * SCALES + scale]! * this.#norms[scale]!)]!;
    }
    const age = Math.min(AGE_MAX, this.#tokens - this.#lastUse[key]!);
    features[SCALES] = LOG_AGE[age]!;
    features[SCALES + 1] = age === 0 ? 1 : 0;
    features[SCALES + 2] = age === 1 ? 1 : 0;
    features[SCALES + 3] = LOG_GUESS[shareIndex(this.#soon[expert]!)]!;
    features[SCALES + 4] = LOG_GUESS[shareIndex(this.#later[expert]!)]!;
    features[SCALES + 5] = 1;
  }

  /** xorshift32, for examples only: the same in every run. */
  #draw(): number {
    let x = this.#seed;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#seed = x | 0;
    return (x >>> 0) / 2 ** 32;
  }

  #rescale(): void {
    for (let scale = 0; scale < SCALES; ++scale) {
      const factor = 2 ** ((this.#origin - this.#tokens) / HALF_LIVES[scale]!);
      for (let at = scale; at < this.#uses.length; at += SCALES) this.#uses[at] = this.#uses[at]! * factor;
    }
    this.#origin = this.#tokens;
  }
}
