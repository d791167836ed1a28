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

export class Policies {
  readonly #model: PrecisionModel;
  readonly #mode: Mode;
  readonly #bits: number;
  readonly #exact: LevelPolicy;
  readonly #kept = new Map<number, LevelPolicy>();

  /** @param bits of routed requests that name none; null for {@link DEFAULT_MEAN_BITS}, or less at a low full level. */
  constructor(model: PrecisionModel, mode: Mode, bits: number | null) {
    const full = model.levels.at(-1)!;
    this.#model = model;
    this.#mode = mode;
    this.#bits = bits ?? Math.min(DEFAULT_MEAN_BITS, (full + nextLevel(model.levels, full)) / 2);
    this.#exact = fixedLevel(full);
  }

  /** @throws {MoestroError} INVALID_REQUEST when the request's own policy or bits are none of the model's. */
  of(precision: Precision = {}): LevelPolicy {
    const { policy, bits } = precision;
    if (policy !== undefined) return this.#checked(policy);
    if ((precision.mode ?? this.#mode) === 'exact') return this.#exact;
    return this.#ofBits(bits ?? this.#bits);
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
