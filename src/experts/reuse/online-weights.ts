/**
 * Weights of a logistic regression that start from fitted ones and are drawn from them by what a run shows, the less the
 * surer they are: a Kalman filter over weights with the logistic function linearised where it stands.
 *
 * Examples are begun when an expert is valued and end when it is used again or its time is over; until then they stand in a ring
 * of fixed size, oldest first. Where the ring is full no example begins.
 */

/** Examples under way at most. */
const RING = 4096;
/** Variance of each weight around the fitted one before anything is seen: models differ by some hundredths. */
const VARIANCE = 0.008;
/** What is known fades by this factor an example: some thousand tokens of a large model. */
const FADE = 1.0001;
/** No outcome is so sure that it is worth nothing. */
const CURVATURE_LEAST = 0.02;

export class OnlineWeights {
  /** Float64Array [size]: what to add to the fitted weights. */
  readonly deltas: Float64Array;
  readonly #size: number;
  /** [size][size]. */
  readonly #covariance: Float64Array;
  readonly #gain: Float64Array;
  /** By key: its place in the ring, -1 for no example under way. */
  readonly #placeOf: Int32Array;
  readonly #keys = new Int32Array(RING).fill(-1);
  readonly #began = new Int32Array(RING);
  readonly #features: Float32Array;
  #head = 0;
  #count = 0;

  constructor(size: number, keys: number) {
    this.#size = size;
    this.deltas = new Float64Array(size);
    this.#gain = new Float64Array(size);
    this.#covariance = new Float64Array(size * size);
    for (let i = 0; i < size; ++i) this.#covariance[i * size + i] = VARIANCE;
    this.#placeOf = new Int32Array(keys).fill(-1);
    this.#features = new Float32Array(RING * size);
  }

  isUnderWay(key: number): boolean {
    return this.#placeOf[key]! >= 0;
  }

  begin(key: number, turn: number, features: Float64Array): void {
    if (this.#count === RING) return;
    const place = (this.#head + this.#count++) % RING;
    this.#placeOf[key] = place;
    this.#keys[place] = key;
    this.#began[place] = turn;
    this.#features.set(features, place * this.#size);
  }

  /** The expert is used: its example, if one is under way, is over. */
  used(key: number, turn: number, stay: number, weights: Float64Array, isLearnt: boolean): void {
    const place = this.#placeOf[key]!;
    if (place < 0) return;
    this.#placeOf[key] = -1;
    this.#keys[place] = -1;
    if (isLearnt) this.#learn(place, Math.exp((1 - turn + this.#began[place]!) / stay), weights);
  }

  /** Ends the examples that are older than `horizon` turns: not used in time. */
  expire(turn: number, horizon: number, weights: Float64Array): void {
    while (this.#count > 0) {
      const key = this.#keys[this.#head]!;
      if (key >= 0 && turn - this.#began[this.#head]! <= horizon) return;
      if (key >= 0) {
        this.#placeOf[key] = -1;
        this.#learn(this.#head, 0, weights);
      }
      this.#keys[this.#head] = -1;
      this.#head = (this.#head + 1) % RING;
      --this.#count;
    }
  }

  /** @param weights those in force, the deltas among them; both are changed. */
  #learn(place: number, outcome: number, weights: Float64Array): void {
    const size = this.#size;
    const from = place * size;
    const features = this.#features;
    const covariance = this.#covariance;
    const gain = this.#gain;
    let z = 0;
    let spread = 0;
    for (let i = 0; i < size; ++i) {
      let sum = 0;
      for (let j = 0; j < size; ++j) sum += covariance[i * size + j]! * features[from + j]!;
      gain[i] = sum;
      spread += sum * features[from + i]!;
      z += weights[i]! * features[from + i]!;
    }
    const chance = 1 / (1 + Math.exp(-z));
    const curvature = Math.max(CURVATURE_LEAST, chance * (1 - chance));
    const share = 1 / (1 + curvature * spread);
    for (let i = 0; i < size; ++i) {
      const step = gain[i]! * share * (outcome - chance);
      weights[i] = weights[i]! + step;
      this.deltas[i] = this.deltas[i]! + step;
      for (let j = 0; j < size; ++j) {
        const at = i * size + j;
        covariance[at] = (covariance[at]! - gain[i]! * gain[j]! * curvature * share) * FADE;
      }
    }
    for (let i = 0; i < size; ++i) if (covariance[i * size + i]! > VARIANCE) this.#cap(i);
  }

  /** Nothing is less sure than before the run. */
  #cap(i: number): void {
    const size = this.#size;
    const factor = Math.sqrt(VARIANCE / this.#covariance[i * size + i]!);
    for (let j = 0; j < size; ++j) {
      this.#covariance[i * size + j] = this.#covariance[i * size + j]! * factor;
      this.#covariance[j * size + i] = this.#covariance[j * size + i]! * factor;
    }
  }
}
