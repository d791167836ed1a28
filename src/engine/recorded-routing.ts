/** Recorded routing in place of the router's, for benchmarks: which place of the recording does each stream read? */
import type { Routing } from '../experts/plan.js';
import type { RoutingTrace } from '../experts/trace.js';
import type { Batch } from './batch.js';

/** A stream begins where the recording was when it came, counted in tokens since start, and reads on from there. */
export class RecordedRouting {
  readonly #trace: Pick<RoutingTrace, 'routingFor'>;
  readonly #isTurned: boolean;
  readonly #experts: number;
  /** Where each stream began in the recording. */
  readonly #origins = new Map<number, number>();
  #tokensRun = 0;

  /**
   * @param experts of a layer.
   * @param isTurned whether each stream's experts are other ones than the recording's, so that streams are unlike.
   */
  constructor(trace: Pick<RoutingTrace, 'routingFor'>, experts: number, isTurned: boolean) {
    this.#trace = trace;
    this.#experts = experts;
    this.#isTurned = isTurned;
  }

  /** Puts what was recorded for MoE layer `layer` in the place of ids and weights. */
  replay(layer: number, batch: Batch, { topK, ids, weights }: Routing): void {
    for (let row = 0, token = 0; row < batch.rowCount; ++row) {
      const count = batch.rowTokens[row]!;
      const id = batch.rowIds[row]!;
      const position = batch.positions[token]!;
      const origin = this.#origins.get(id) ?? this.#tokensRun + token - position;
      this.#origins.set(id, origin);
      const [from, to] = [token * topK, (token + count) * topK];
      this.#trace.routingFor(origin + position, layer, count, ids.subarray(from, to), weights.subarray(from, to));
      if (this.#isTurned) turnExperts(ids, from, to, id, layer, this.#experts);
      token += count;
    }
  }

  /** A step of so many tokens has ended. */
  endStep(tokens: number): void {
    this.#tokensRun += tokens;
  }
}

/** Moves the ids of one stream round by a number of its own for each layer. */
function turnExperts(ids: Uint16Array, from: number, to: number, id: number, layer: number, experts: number): void {
  const by = Math.imul(Math.imul(id, 0x9e3779b1) ^ (layer + 1), 0x85ebca6b) >>> 16;
  for (let at = from; at < to; ++at) ids[at] = (ids[at]! + by) % experts;
}
