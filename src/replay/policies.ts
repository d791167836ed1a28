/** The policies that can be replayed, by name. `default` is the engine's own and `belady` knows the future. */
import { MoestroError } from '../errors.js';
import type { ChooseVictim } from '../experts/eviction/choose-victim.js';
import { edgeMoe } from '../experts/eviction/edge-moe.js';
import { hobbit } from '../experts/eviction/hobbit.js';
import { lfu } from '../experts/eviction/lfu.js';
import { lfuDecay } from '../experts/eviction/lfu-decay.js';
import { lfuDecayLayer } from '../experts/eviction/lfu-decay-layer.js';
import { lru } from '../experts/eviction/lru.js';
import { lfru } from './lfru.js';
import type { Past } from './past.js';

/** Chooses among the experts a cache holds. */
export type ReplayVictim = (candidates: Int32Array, count: number, past: Past, layer: number) => number;

export interface ReplayPolicy {
  readonly kind: 'cache' | 'belady' | 'engine';
  readonly name: string;
  readonly chooseVictim: ReplayVictim | null;
  /** Tokens after which a use counts half. */
  readonly halfLife: number;
}

const CACHES: Readonly<Record<string, ReplayVictim | ChooseVictim>> = {
  lru,
  lfu,
  'lfu-decay': lfuDecay,
  'lfu-decay-layer': lfuDecayLayer,
  lfru,
  edgemoe: edgeMoe,
  hobbit,
};

export const POLICY_NAMES: readonly string[] = [...Object.keys(CACHES), 'belady', 'default'];
const HALF_LIFE = 8;

/**
 * @param text a name of {@link POLICY_NAMES}; those that decay take a half-life in tokens: "lfu-decay:32".
 * @throws {MoestroError} INVALID_CONFIG for any other name.
 */
export function parsePolicy(text: string): ReplayPolicy {
  const [name = '', halfLifeText] = text.split(':');
  const halfLife = halfLifeText === undefined ? HALF_LIFE : Number(halfLifeText);
  const chooseVictim = Object.hasOwn(CACHES, name) ? CACHES[name]! : null;
  const takesHalfLife = name.startsWith('lfu-decay');
  const isHalfLife = halfLifeText === undefined || (takesHalfLife && halfLife >= 0.5 && halfLife <= 1e6);
  if (!POLICY_NAMES.includes(name) || !isHalfLife) {
    throw new MoestroError(
      'INVALID_CONFIG',
      `Cannot use --policy "${text}": needed one of ${POLICY_NAMES.join(', ')}, or lfu-decay:TOKENS for another half-life`,
      { name: '--policy', found: text },
    );
  }
  const kind = name === 'default' ? 'engine' : name === 'belady' ? 'belady' : 'cache';
  return { kind, name: text, chooseVictim, halfLife };
}
