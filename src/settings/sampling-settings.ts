import { decimal, unless, whole } from './checks.js';
import type { Setting } from './setting.js';

/** How tokens are drawn: `moestro chat`. */
export const SAMPLING_SETTINGS: readonly Setting[] = [
  {
    key: 'temperature',
    flag: '--temperature <number>',
    env: 'MOESTRO_TEMPERATURE',
    help: '0 always takes the likeliest token, 2 is wild',
    fallback: '0.7',
    parse: decimal(0, 2),
    isLive: true,
  },
  {
    key: 'topK',
    flag: '--top-k <count>',
    env: 'MOESTRO_TOP_K',
    help: 'draw from so many of the likeliest tokens; 0 for all',
    fallback: '40',
    parse: whole(0, 1 << 24),
    isLive: true,
  },
  {
    key: 'topP',
    flag: '--top-p <share>',
    env: 'MOESTRO_TOP_P',
    help: 'draw from the likeliest tokens that hold this share of the probability',
    fallback: '0.95',
    parse: decimal(0, 1),
    isLive: true,
  },
  {
    key: 'minP',
    flag: '--min-p <share>',
    env: 'MOESTRO_MIN_P',
    help: 'leave out tokens below this share of the likeliest one',
    fallback: '0.05',
    parse: decimal(0, 1),
    isLive: true,
  },
  {
    key: 'repeatPenalty',
    flag: '--repeat-penalty <number>',
    env: 'MOESTRO_REPEAT_PENALTY',
    help: 'above 1 makes tokens of the last 64 less likely',
    fallback: '1',
    parse: decimal(0.01, 10),
    isLive: true,
  },
  {
    key: 'seed',
    flag: '--seed <number>',
    env: 'MOESTRO_SEED',
    help: 'the same seed draws the same answer; "random" draws another each time',
    fallback: 'random',
    parse: unless('random', whole(0, Number.MAX_SAFE_INTEGER)),
    isLive: true,
  },
  {
    key: 'maxTokens',
    flag: '--max-tokens <count>',
    env: 'MOESTRO_MAX_TOKENS',
    help: 'longest answer, or "auto" for as long as the context lasts',
    fallback: 'auto',
    parse: unless('auto', whole(1, 1 << 24)),
    isLive: true,
  },
];
