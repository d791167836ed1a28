/** The price of a missing bit in mode `elastic` while the engine runs: experts/governor.ts says how it changes, this when. */
import { DEFAULT_STALL_SHARE, type GovernorGoal, nextPrice, priceInHurry } from '../experts/governor.js';
import type { EngineParts } from './engine-parts.js';

export class ElasticPrice {
  readonly #goal: GovernorGoal;
  /** Stands in for the governor's, for measurements. */
  readonly #fixed: number | null;
  readonly #now: () => number;
  #price: number;
  #stepStartedMs = 0;

  constructor({ targetTps, elasticPrice, now }: Pick<EngineParts, 'targetTps' | 'elasticPrice' | 'now'>) {
    this.#goal = { targetTps: targetTps ?? null, stallShare: DEFAULT_STALL_SHARE };
    this.#fixed = elasticPrice ?? null;
    this.#now = now;
    this.#price = elasticPrice ?? 1;
  }

  /** The governor's, between steps. */
  get price(): number {
    return this.#price;
  }

  beginStep(nowMs: number): void {
    this.#stepStartedMs = nowMs;
  }

  /** Within a step of which the share `done` of the layers has run. */
  at(done: number): number {
    return this.#fixed ?? priceInHurry(this.#price, done, this.#now() - this.#stepStartedMs, this.#goal);
  }

  /** After a step in which each sequence ran one token. */
  stepped(stepMs: number, stallMs: number): void {
    this.#price = nextPrice(this.#price, { stepMs, stallMs }, this.#goal);
  }
}
