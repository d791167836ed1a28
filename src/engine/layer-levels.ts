/**
 * At which level does each (token, rank) of a layer run? Asks the policy of every row; on the way it counts the uses that
 * eviction and likeness go by, and what answers were computed at.
 */
import { addElastic, createElasticScratch, type ElasticScratch, raiseElastic } from '../experts/elastic.js';
import type { Likeness } from '../experts/likeness.js';
import type { Routing } from '../experts/plan.js';
import { chooseLevels } from '../experts/precision.js';
import { expertCapacity, type Residency } from '../experts/residency.js';
import type { Batch } from './batch.js';
import type { StepReport } from './step-report.js';

/** Of a prompt, the last tokens tell what its answer will ask for. */
const LIKENESS_TOKENS = 64;

export class LayerLevels {
  /** Price of a missing bit in elastic mode when so large a share of the layers has run: the governor's word. */
  elasticPrice: (done: number) => number = () => 0;
  /** Which streams ask for the same experts; null where nobody wants to know. */
  likeness: Likeness | null = null;
  readonly #residency: Residency;
  readonly #fullLevel: number;
  readonly #report: StepReport;
  readonly #elastic: ElasticScratch;
  /** By row: where its uses are counted in this step. */
  readonly #rowUses: (Float32Array | null)[] = [];

  /** @param report of the step, added to. */
  constructor(residency: Residency, fullLevel: number, report: StepReport) {
    this.#residency = residency;
    this.#fullLevel = fullLevel;
    this.#report = report;
    this.#elastic = createElasticScratch(residency.experts);
  }

  /** A step begins. Where everything fits it does not matter who is alike. */
  begin({ rowCount, rowIds, rowTokens }: Batch): void {
    const { layers, experts } = this.#residency;
    const isCounted = this.likeness !== null && expertCapacity(this.#residency) < layers * experts;
    this.likeness?.beginStep();
    for (let row = 0; row < rowCount; ++row) {
      this.#rowUses[row] = isCounted ? this.likeness!.open(rowIds[row]!, rowTokens[row]!) : null;
    }
  }

  /** Fills the levels of every live token of the layer, and counts. */
  choose(batch: Batch, routing: Routing): void {
    const { ids, weights, levels, live, layer, topK } = routing;
    const { experts, layers, uses } = this.#residency;
    const report = this.#report;
    const isElastic = this.#addElastic(batch, routing);
    const price = isElastic ? this.elasticPrice(layer / layers) : 0;
    let token = 0;
    for (let row = 0; row < batch.rowCount; ++row) {
      const last = token + batch.rowTokens[row]! - 1;
      const policy = batch.rowPolicies[row]!;
      const own = this.#rowUses[row]!;
      for (; token <= last; ++token) {
        if (live[token] === 0) continue;
        if (policy.isElastic === true) {
          raiseElastic(policy, price, routing, token, this.#residency, layer * experts, this.#elastic);
        } else {
          chooseLevels(policy, layer, weights, topK, token, levels);
        }
        for (let at = token * topK; at < (token + 1) * topK; ++at) {
          const key = layer * experts + ids[at]!;
          uses.record(key, last - token);
          if (own !== null && last - token < LIKENESS_TOKENS) own[key] = own[key]! + 1;
          const level = levels[at]!;
          const weight = weights[at]!;
          report.bits[row] = report.bits[row]! + level;
          report.mass[row] = report.mass[row]! + weight;
          if (level < this.#fullLevel) report.massBelow[row] = report.massBelow[row]! + weight;
        }
        report.pairs[row] = report.pairs[row]! + topK;
      }
    }
  }

  /** What the tokens of elastic requests want together; false when there are none. */
  #addElastic(batch: Batch, routing: Routing): boolean {
    let isElastic = false;
    let token = 0;
    for (let row = 0; row < batch.rowCount; ++row) {
      const policy = batch.rowPolicies[row]!;
      const end = token + batch.rowTokens[row]!;
      if (policy.isElastic !== true) {
        token = end;
        continue;
      }
      if (!isElastic) {
        this.#elastic.squares.fill(0);
        this.#elastic.level.fill(0);
      }
      isElastic = true;
      for (; token < end; ++token) if (routing.live[token] === 1) addElastic(policy, routing, token, this.#elastic);
    }
    return isElastic;
  }
}
