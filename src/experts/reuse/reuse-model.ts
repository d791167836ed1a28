/**
 * What is an expert worth keeping for? The logarithm of E[decay^(turns until its next use)], estimated for every expert
 * that holds slots each time its layer has its turn.
 *
 * The estimate is a logistic regression that starts from plain decayed use and learns while the engine runs: now and then an
 * expert's features are remembered until it is used again, or until that would be too late to matter, and what came of it is
 * one example. What it is told:
 * - uses decayed with half-lives of 2, 8, 32 and 128 tokens, as logarithms: frequency at four time scales,
 * - turns since the last use, and whether that was this turn or the one before: recency,
 * - what followed the earlier tokens that were routed like this one (similar-tokens.ts): context,
 * - the layer, by a bias of its own.
 *
 * `decay` follows the cache: an expert stays for capacity / misses turns in the mean (Little's law), and a use beyond that is
 * not worth waiting for. Learning to rank victims from recency and frequency: FlashMoE, arXiv:2601.17063, which trains
 * offline; here nothing is trained before the run, and nothing is kept after it.
 */
import { SimilarTokens } from './similar-tokens.js';

const HALF_LIVES = [2, 8, 32, 128] as const;
const SCALES = HALF_LIVES.length;
/** Features: uses, three of age, two of similar tokens, and 1. */
const FEATURES = SCALES + 6;
const AGE_MAX = 1023;
/** Steps of gradient descent (AdaGrad with a slowly fading sum); .02 does as well. */
const RATE = 0.05;
const FADE = 0.9998;
/** Examples begun a layer and turn. */
const EXAMPLES = 6;
/** Turns of a prompt chunk that counts are decayed by at most: one prompt must not wipe what decoding used. */
const CHUNK_TURNS = 16;

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
  readonly #layers: number;
  readonly #experts: number;
  readonly #similar: SimilarTokens;
  readonly #soon: Float32Array;
  readonly #later: Float32Array;
  /** [key][scale]; turns since the last use by key. */
  readonly #uses: Float32Array;
  readonly #age: Uint16Array;
  readonly #weights: Float64Array;
  readonly #squares = new Float64Array(FEATURES).fill(0.001);
  readonly #bias: Float64Array;
  readonly #features = new Float64Array(FEATURES);
  /** Examples under way: turn they began at (0: none) and features, by key. */
  readonly #began: Int32Array;
  readonly #remembered: Float32Array;
  readonly #chunkDecay = new Float64Array(SCALES);
  readonly #norms = new Float64Array(SCALES);
  #rows = 0;
  #turn = 0;
  #tokensSeen = 0;
  #turnTokens = 1;
  #isDecode = true;
  #lifetime = 1;
  #decay = 0.5;
  #missesPerTurn: number;
  #turnMisses = 0;
  #decodeTurns = 0;
  #seed = 12345;

  constructor({ layers, experts, topK, rows }: ReuseShape) {
    const keys = layers * experts;
    this.#layers = layers;
    this.#experts = experts;
    this.worth = new Float32Array(keys);
    this.#similar = new SimilarTokens(layers, experts, topK, rows);
    this.#soon = new Float32Array(experts);
    this.#later = new Float32Array(experts);
    this.#uses = new Float32Array(keys * SCALES);
    this.#age = new Uint16Array(keys).fill(AGE_MAX);
    // Before anything is learned: the mean of the scales, and the guess of similar tokens beside it.
    this.#weights = Float64Array.of(0.3, 0.3, 0.3, 0.3, 0, 0, 0, 0.5, 0.3, 0.5);
    this.#bias = new Float64Array(layers);
    this.#began = new Int32Array(keys);
    this.#remembered = new Float32Array(keys * FEATURES);
    this.#missesPerTurn = layers * topK * 0.4;
  }

  /**
   * A step begins.
   *
   * @param rows sequences of the step; streamIds tell them apart from step to step, rowTokens how far each goes.
   * @param capacity experts that all slots hold.
   */
  beginStep(rows: number, streamIds: ArrayLike<number>, rowTokens: ArrayLike<number>, capacity: number): void {
    if (this.#turn > 0 && this.#isDecode) {
      this.#missesPerTurn += Math.max(0.02, 1 / ++this.#decodeTurns) * (this.#turnMisses - this.#missesPerTurn);
    }
    let longest = 1;
    for (let row = 0; row < rows; ++row) longest = Math.max(longest, rowTokens[row]!);
    this.#similar.beginStep(rows, streamIds, rowTokens);
    this.#rows = rows;
    this.#turnMisses = 0;
    this.#isDecode = longest === 1;
    this.#turnTokens = Math.min(longest, CHUNK_TURNS);
    this.#tokensSeen += this.#turnTokens;
    ++this.#turn;
    this.#lifetime = Math.max(0.7, capacity / Math.max(0.001, this.#missesPerTurn));
    this.#decay = Math.exp(-1 / this.#lifetime);
    for (let scale = 0; scale < SCALES; ++scale) {
      const decay = 2 ** (-1 / HALF_LIVES[scale]!);
      this.#chunkDecay[scale] = decay ** this.#turnTokens;
      this.#norms[scale] = (1 - decay) / (1 - decay ** this.#tokensSeen);
    }
  }

  /**
   * A layer was routed, and its slots have not changed hands yet: learns from what was used and values the layer anew.
   *
   * @param residentBits by key: 0 for an expert that holds no slots.
   */
  observe(routed: RoutedLayer, residentBits: Uint8Array, capacity: number): void {
    // Where everything fits nothing is ever evicted: there is no choice to be made, and no time to spend on it.
    if (capacity >= this.#layers * this.#experts) return;
    const { layer } = routed;
    const first = layer * this.#experts;
    const chance = (EXAMPLES * this.#layers) / Math.max(1, capacity);
    this.#grow(first);
    this.#use(routed, first, residentBits);
    this.#similar.append(layer, routed.ids);
    this.#similar.guess(layer, this.#decay, this.#soon, this.#later);
    for (let expert = 0; expert < this.#experts; ++expert) {
      const key = first + expert;
      if (residentBits[key] === 0 && this.#age[key]! > 0) continue;
      this.#describe(key, expert);
      const z = this.#weigh(this.#features, 0, layer);
      this.worth[key] = z > 30 ? 0 : z - Math.log1p(Math.exp(z));
      if (this.#began[key] === 0 && this.#isDecode && this.#draw() < chance) {
        this.#began[key] = this.#turn;
        this.#remembered.set(this.#features, key * FEATURES);
      }
    }
  }

  /** One turn older, and examples that took too long have an end: not used in time. */
  #grow(first: number): void {
    const horizon = Math.ceil(3 * this.#lifetime) + 1;
    const layer = first / this.#experts;
    for (let key = first; key < first + this.#experts; ++key) {
      this.#age[key] = Math.min(AGE_MAX, this.#age[key]! + this.#turnTokens);
      for (let scale = 0; scale < SCALES; ++scale) {
        const at = key * SCALES + scale;
        this.#uses[at] = this.#uses[at]! * this.#chunkDecay[scale]!;
      }
      if (this.#began[key]! > 0 && this.#turn - this.#began[key]! > horizon) this.#learn(key, layer, 0);
    }
  }

  /** Counts the uses of the step, each `age` tokens before the newest of its row. */
  #use(routed: RoutedLayer, first: number, residentBits: Uint8Array): void {
    const { ids, topK, tokens, layer } = routed;
    const perRow = Math.max(1, Math.floor(tokens / Math.max(1, this.#rows)));
    for (let token = 0; token < tokens; ++token) {
      // Rows of a chunk are of one length but for the last steps of a prompt: near enough for an age.
      const age = this.#isDecode ? 0 : perRow - 1 - (token % perRow);
      for (let at = token * topK; at < (token + 1) * topK; ++at) {
        const key = first + ids[at]!;
        if (this.#age[key]! > 0 && residentBits[key] === 0) ++this.#turnMisses;
        if (this.#began[key]! > 0) {
          const turns = this.#turn - this.#began[key]!;
          if (this.#isDecode) this.#learn(key, layer, Math.exp((1 - turns) / this.#lifetime));
          else this.#began[key] = 0;
        }
        if (age < this.#age[key]!) this.#age[key] = age;
        if (age > CHUNK_TURNS) continue;
        for (let scale = 0; scale < SCALES; ++scale) {
          const use = key * SCALES + scale;
          this.#uses[use] = this.#uses[use]! + (age === 0 ? 1 : 2 ** (-age / HALF_LIVES[scale]!));
        }
      }
    }
  }

  #describe(key: number, expert: number): void {
    const features = this.#features;
    for (let scale = 0; scale < SCALES; ++scale) {
      features[scale] = LOG_USE[shareIndex(this.#uses[key * SCALES + scale]! * this.#norms[scale]!)]!;
    }
    const age = this.#age[key]!;
    features[SCALES] = LOG_AGE[age]!;
    features[SCALES + 1] = age === 0 ? 1 : 0;
    features[SCALES + 2] = age === 1 ? 1 : 0;
    features[SCALES + 3] = LOG_GUESS[shareIndex(this.#soon[expert]!)]!;
    features[SCALES + 4] = LOG_GUESS[shareIndex(this.#later[expert]!)]!;
    features[SCALES + 5] = 1;
  }

  #weigh(features: Float32Array | Float64Array, from: number, layer: number): number {
    let z = this.#bias[layer]!;
    for (let i = 0; i < FEATURES; ++i) z += this.#weights[i]! * features[from + i]!;
    return z;
  }

  /** One example has come to its end; `outcome` is decay^(turns - 1), 0 for no use in time. */
  #learn(key: number, layer: number, outcome: number): void {
    this.#began[key] = 0;
    const from = key * FEATURES;
    const error = outcome - 1 / (1 + Math.exp(-this.#weigh(this.#remembered, from, layer)));
    for (let i = 0; i < FEATURES; ++i) {
      const gradient = error * this.#remembered[from + i]!;
      this.#squares[i] = this.#squares[i]! * FADE + gradient * gradient;
      this.#weights[i] = this.#weights[i]! + (RATE * gradient) / Math.sqrt(this.#squares[i]! + 0.05);
    }
    this.#bias[layer] = this.#bias[layer]! + 0.3 * RATE * error;
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
}
