/** Which levels a request runs at: what it asks for, or what the engine was told. */
import { MoestroError } from '../errors.js';
import {
  DEFAULT_MEAN_BITS,
  fixedLevel,
  type LevelPolicy,
  nextLevel,
  type PrecisionModel,
  policyOfBits,
} from '../experts/precision.js';
import type { Mode, Precision } from './types.js';

/** Policies kept: a server's requests name few numbers of bits, and making one takes a millisecond. */
const KEPT_MAX = 64;

/** Mean bits that elastic requests have at least: the knee of routed mode's frontier (docs/elastic.md). */
export const DEFAULT_FLOOR_BITS = 2.5;
const FLOOR_BITS_MIN = 2.1;

export class Policies {
  readonly #model: PrecisionModel;
  readonly #mode: Mode;
  readonly #bits: Readonly<Record<'routed' | 'elastic', number>>;
  readonly #exact: LevelPolicy;
  readonly #kept = new Map<number, LevelPolicy>();

  /**
   * @param bits of requests that name none. Null: of routed ones {@link DEFAULT_MEAN_BITS}, or less at a low full level;
   * of elastic ones {@link DEFAULT_FLOOR_BITS}.
   */
  constructor(model: PrecisionModel, mode: Mode, bits: number | null) {
    const full = model.levels.at(-1)!;
    this.#model = model;
    this.#mode = mode;
    this.#bits = {
      routed: bits ?? Math.min(DEFAULT_MEAN_BITS, (full + nextLevel(model.levels, full)) / 2),
      elastic: bits ?? DEFAULT_FLOOR_BITS,
    };
    this.#exact = fixedLevel(full);
  }

  /** @throws {MoestroError} INVALID_REQUEST when the request's own policy or bits are none of the model's. */
  of(precision: Precision = {}): LevelPolicy {
    const { policy, bits } = precision;
    if (policy !== undefined) return this.#checked(policy);
    const mode = precision.mode ?? this.#mode;
    if (mode === 'exact') return this.#exact;
    const wanted = bits ?? this.#bits[mode];
    if (mode === 'routed') return this.#ofBits(wanted);
    // At level 2 throughout there would be no price to compare with, and answers nobody wants.
    return { ...this.#ofBits(Math.max(wanted, FLOOR_BITS_MIN)), isElastic: true };
  }

  #ofBits(bits: number): LevelPolicy {
    if (!(bits >= 2 && bits <= 8)) {
      throw new MoestroError('INVALID_REQUEST', `Cannot run at ${bits} mean bits: needed a number from 2 to 8`, {
        param: 'moestro.bits',
      });
    }
    const kept = this.#kept.get(bits);
    if (kept !== undefined) return kept;
    const made = policyOfBits(this.#model, bits);
    if (this.#kept.size >= KEPT_MAX) this.#kept.clear();
    this.#kept.set(bits, made);
    return made;
  }

  #checked(policy: LevelPolicy): LevelPolicy {
    const { levels, sensitivities } = this.#model;
    const length = sensitivities.length * (policy.levels.length - 1);
    if (policy.levels.length > 0 && policy.levels.every((level) => levels.includes(level))) {
      if (policy.thresholds.length === length) return policy;
    }
    const found = `levels ${policy.levels.join(', ')} and ${policy.thresholds.length} thresholds`;
    throw new MoestroError(
      'INVALID_REQUEST',
      `Cannot run at ${found}: needed some of ${levels.join(', ')} and ${length} thresholds`,
    );
  }
}
