/**
 * Which experts follow from those that the layer before has just chosen? Counts of pairs across one layer border, learned
 * online, with evidence added up as log lift: averaging probabilities instead costs 3 to 7 points of recall, and tables
 * of another text are worse than chance (routing traces of OLMoE, Kimi-Linear and Qwen3). For where a router cannot be
 * asked ahead: recorded routing.
 */

/** Counts are halved when one reaches this, so that old text fades. */
const COUNT_MAX = 4096;
/** Tables above this would be felt in the budget: 512 experts of 48 layers. */
const TABLE_BYTES_MAX = 16 << 20;
/** Pairs that are pretended to have been seen, at chance. */
const PRIOR = 2;

export class PairStatistics {
  readonly #experts: number;
  /** [layer][expert before][expert], [layer][expert]: times chosen; layer 0 has nothing before it. */
  readonly #pairs: Uint16Array;
  readonly #singles: Uint16Array;
  readonly #tokens: Float64Array;
  /** A model with too many experts for a table: scores are of single experts alone. */
  readonly #hasPairs: boolean;

  constructor(layers: number, experts: number) {
    this.#experts = experts;
    this.#hasPairs = 2 * layers * experts * experts <= TABLE_BYTES_MAX;
    this.#pairs = new Uint16Array(this.#hasPairs ? layers * experts * experts : 0);
    this.#singles = new Uint16Array(layers * experts);
    this.#tokens = new Float64Array(layers);
  }

  /** One token chose `ids[from .. from + topK)` in the layer, and `before[from .. from + topK)` in the one before it. */
  observe(layer: number, before: Uint16Array, ids: Uint16Array, from: number, topK: number): void {
    const experts = this.#experts;
    let most = 0;
    for (let at = from; at < from + topK; ++at) {
      const single = layer * experts + ids[at]!;
      const count = this.#singles[single]! + 1;
      this.#singles[single] = count;
      most = Math.max(most, count);
      if (layer === 0 || !this.#hasPairs) continue;
      for (let other = from; other < from + topK; ++other) {
        const pair = (layer * experts + before[other]!) * experts + ids[at]!;
        this.#pairs[pair] = this.#pairs[pair]! + 1;
      }
    }
    this.#tokens[layer] = this.#tokens[layer]! + 1;
    if (most >= COUNT_MAX) this.#fade(layer);
  }

  /** scores[e] = log P(e) + sum of log lift over the experts `ids[from .. from + topK)` of the layer before. */
  score(layer: number, ids: Uint16Array, from: number, topK: number, scores: Float32Array): void {
    const experts = this.#experts;
    const tokens = this.#tokens[layer]! + PRIOR;
    for (let expert = 0; expert < experts; ++expert) {
      const chance = (this.#singles[layer * experts + expert]! + (PRIOR * topK) / experts) / tokens;
      scores[expert] = Math.log(chance);
    }
    if (layer === 0 || !this.#hasPairs) return;
    for (let at = from; at < from + topK; ++at) {
      const before = ids[at]!;
      const seen = this.#singles[(layer - 1) * experts + before]! + PRIOR;
      const row = (layer * experts + before) * experts;
      for (let expert = 0; expert < experts; ++expert) {
        const chance = (this.#singles[layer * experts + expert]! + (PRIOR * topK) / experts) / tokens;
        const lift = (this.#pairs[row + expert]! + PRIOR * chance) / (seen * chance);
        scores[expert] = scores[expert]! + Math.log(lift);
      }
    }
  }

  #fade(layer: number): void {
    const experts = this.#experts;
    const halve = (counts: Uint16Array, from: number, to: number) => {
      for (let i = from; i < to; ++i) counts[i] = counts[i]! >> 1;
    };
    halve(this.#singles, layer * experts, (layer + 1) * experts);
    if (this.#hasPairs) halve(this.#pairs, layer * experts * experts, (layer + 1) * experts * experts);
    this.#tokens[layer] = this.#tokens[layer]! / 2;
  }
}
