/**
 * The table of settings: flag, variable, help text, default and check of each stand in one row. A flag beats its
 * variable, a variable the configuration file, the file the default. In the file a setting has the name of its flag.
 */
import type { GearMode, Mode, PrefetchMode } from './engine/types.js';
import type { IoBackend, Isa, KvType } from './native/binding.js';
import {
  address,
  budgetSize,
  byteSize,
  type Check,
  choice,
  decimal,
  hostNames,
  keys,
  level,
  onOff,
  origins,
  path,
  paths,
  unless,
  whole,
} from './settings/checks.js';

const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** The instruction sets that kernels are written for, by Node's name of the processor's architecture. */
export const isasOf = (architecture: string): readonly Isa[] =>
  architecture === 'x64'
    ? ['scalar', 'avx2', 'avx512', 'avx512vbmi', 'amx']
    : architecture === 'arm64'
      ? ['scalar', 'neon']
      : ['scalar'];
const ISAS = isasOf(process.arch);

export interface Setting {
  readonly key: string;
  /** With the placeholder of its value, as --help shows it. */
  readonly flag: string;
  readonly env: string;
  readonly help: string;
  /** Shown by --help; also the value, through `parse`, when neither flag nor variable is given. */
  readonly fallback: string;
  readonly parse: Check;
  /** Never shown, whatever its value. */
  readonly isSecret?: boolean;
  /** In a file, relative to the folder of that file, but for these words, which are no paths. */
  readonly isPath?: boolean;
  readonly words?: readonly string[];
  /** A running server takes a new value; the others need a restart. */
  readonly isLive?: boolean;
}

/** The model itself: an argument instead of a flag. Empty for the bundled one. */
export const MODEL_SETTING: Setting = {
  key: 'model',
  flag: 'MODEL',
  env: 'MOESTRO_MODEL',
  help: 'a .moe directory',
  fallback: '',
  parse: path,
  isPath: true,
};

/** Keys and values of past requests: `moestro serve`, `chat` and loadModel(). Measurements keep none. */
export const PREFIX_SETTINGS: readonly Setting[] = [
  {
    key: 'prefixCache',
    flag: '--prefix-cache <on|off>',
    env: 'MOESTRO_PREFIX_CACHE',
    help: 'keep what was computed of past requests for those that begin alike',
    fallback: 'on',
    parse: onOff,
  },
  {
    key: 'prefixMemory',
    flag: '--prefix-memory <size>',
    env: 'MOESTRO_PREFIX_MEMORY',
    help: 'memory of the KV cache that kept prefixes may take, or "auto" for half of it',
    fallback: 'auto',
    parse: unless('auto', byteSize),
  },
  {
    key: 'prefixDir',
    flag: '--prefix-dir <folder>',
    env: 'MOESTRO_PREFIX_DIR',
    help: 'folder in which prefixes outlive the process, "off" for memory only, or "auto": `serve` takes the cache folder of the user, others none',
    fallback: 'auto',
    parse: path,
    isPath: true,
    words: ['auto', 'off'],
  },
  {
    key: 'prefixDisk',
    flag: '--prefix-disk <size>',
    env: 'MOESTRO_PREFIX_DISK',
    help: 'bytes on disk that the prefixes of one model may take',
    fallback: '8GiB',
    parse: byteSize,
  },
  {
    key: 'prefixDailyWrites',
    flag: '--prefix-daily-writes <size>',
    env: 'MOESTRO_PREFIX_DAILY_WRITES',
    help: 'bytes of prefixes written to disk in a day at most, as flash wears',
    fallback: '16GiB',
    parse: byteSize,
  },
];

/** What the engine is told: `moestro serve`, `chat`, `eval`, `bench` and loadModel() share these. */
export const ENGINE_SETTINGS: readonly Setting[] = [
  {
    key: 'budget',
    flag: '--budget <size>',
    env: 'MOESTRO_BUDGET',
    help: 'memory the whole process may take: "8GiB", "1.5GB", "60%", "@FILE" for a file that says so, or "auto" for what is free less a margin',
    fallback: 'auto',
    parse: unless('auto', budgetSize),
    isLive: true,
  },
  {
    key: 'mode',
    flag: '--mode <mode>',
    env: 'MOESTRO_MODE',
    help: 'precision: "exact" runs every expert at the full level, "routed" gives low-weight experts fewer bits, "elastic" also those that are not in memory',
    fallback: 'exact',
    parse: choice<Mode>('exact', 'routed', 'elastic'),
  },
  {
    key: 'meanBits',
    flag: '--mean-bits <bits>',
    env: 'MOESTRO_MEAN_BITS',
    help: 'bits a weight that "routed" aims at in the mean and "elastic" has at least, from 2 to 8, or "auto"',
    fallback: 'auto',
    parse: unless('auto', decimal(2, 8)),
  },
  {
    key: 'targetTps',
    flag: '--target-tps <rate>',
    env: 'MOESTRO_TARGET_TPS',
    help: 'tokens a second that "elastic" holds for each answer where it can, or "auto" to spend a quarter of the time on reads',
    fallback: 'auto',
    parse: unless('auto', decimal(0.01, 100_000)),
  },
  {
    key: 'level',
    flag: '--level <bits>',
    env: 'MOESTRO_LEVEL',
    help: 'the full level in bits: 2, 3, 4, 8, or "auto" for the default of the model',
    fallback: 'auto',
    parse: unless('auto', level),
  },
  {
    key: 'context',
    flag: '--context <positions>',
    env: 'MOESTRO_CONTEXT',
    help: 'positions one request may take, or "auto" for what the budget affords',
    fallback: 'auto',
    parse: unless('auto', whole(16, 1 << 24)),
  },
  {
    key: 'threads',
    flag: '--threads <count>',
    env: 'MOESTRO_THREADS',
    help: 'threads that compute, or "auto" for one per processor',
    fallback: 'auto',
    parse: unless('auto', whole(1, 256)),
  },
  {
    key: 'kv',
    flag: '--kv <type>',
    env: 'MOESTRO_KV',
    help: 'keys and values of past tokens: "f16", or "int8" for half the memory',
    fallback: 'f16',
    parse: choice<KvType>('f16', 'int8'),
  },
  {
    key: 'chunk',
    flag: '--chunk <tokens>',
    env: 'MOESTRO_CHUNK',
    help: 'prompt tokens computed in one step',
    fallback: '512',
    parse: whole(1, 4096),
  },
  {
    key: 'maxSequences',
    flag: '--max-sequences <count>',
    env: 'MOESTRO_MAX_SEQUENCES',
    help: 'requests answered at once, or "auto": 64 where the budget holds all experts, 4 where they are read',
    fallback: 'auto',
    parse: unless('auto', whole(1, 256)),
  },
  {
    key: 'maxQueued',
    flag: '--max-queued <count>',
    env: 'MOESTRO_MAX_QUEUED',
    help: 'requests that wait beyond those; any more are told to come back later',
    fallback: '64',
    parse: whole(0, 10_000),
  },
  {
    key: 'gear',
    flag: '--gear <gear>',
    env: 'MOESTRO_GEAR',
    help: 'who shares the steps of decoding: "joint" all answers, "burst" those alike for a turn, "auto" the faster as measured',
    fallback: 'auto',
    parse: choice<GearMode>('auto', 'joint', 'burst'),
  },
  {
    key: 'tokenGap',
    flag: '--token-gap <ms>',
    env: 'MOESTRO_TOKEN_GAP',
    help: 'milliseconds that an answer waits at most for its next token because of the turns of others',
    fallback: '2000',
    parse: whole(0, 600_000),
  },
  {
    key: 'isa',
    flag: '--isa <name>',
    env: 'MOESTRO_ISA',
    help: `instruction set of the kernels: ${ISAS.join(', ')}, or "auto" for the best there is`,
    fallback: 'auto',
    parse: unless('auto', choice<Isa>(...ISAS)),
  },
  {
    key: 'io',
    flag: '--io <backend>',
    env: 'MOESTRO_IO',
    help: 'how experts are read: io_uring, pread, or "automatic" for io_uring where it works',
    fallback: 'automatic',
    parse: choice<IoBackend>('automatic', 'io_uring', 'pread'),
  },
  {
    key: 'queueDepth',
    flag: '--queue-depth <count>',
    env: 'MOESTRO_QUEUE_DEPTH',
    help: 'reads in flight at once',
    // Reads of 256 KiB or more reach the disk's rate at queue depth 2 to 8.
    fallback: '8',
    parse: whole(1, 256),
  },
  {
    key: 'directIo',
    flag: '--direct-io <on|off>',
    env: 'MOESTRO_DIRECT_IO',
    help: 'read past the page cache',
    fallback: 'on',
    parse: onOff,
  },
  {
    key: 'prefetch',
    flag: '--prefetch <mode>',
    env: 'MOESTRO_PREFETCH',
    help: 'read experts on a guess before they are asked for: on, off, or "auto" for on where it is measured to pay',
    fallback: 'off',
    parse: choice<PrefetchMode>('auto', 'on', 'off'),
  },
  {
    key: 'maxResidentExperts',
    flag: '--max-resident-experts <count>',
    env: 'MOESTRO_MAX_RESIDENT_EXPERTS',
    help: 'keep at most so many experts in memory whatever the budget, or "auto" for no such cap',
    fallback: 'auto',
    parse: unless('auto', whole(1, 1 << 24)),
  },
  ...PREFIX_SETTINGS,
  {
    key: 'recordTrace',
    flag: '--record-trace <file>',
    env: 'MOESTRO_RECORD_TRACE',
    help: 'write which experts every token is routed to, for "moestro replay" (.moetrace); nothing of a text is in it',
    fallback: '',
    parse: path,
    isPath: true,
  },
];

/** What the HTTP server is told. */
export const SERVER_SETTINGS: readonly Setting[] = [
  {
    key: 'host',
    flag: '--host <address>',
    env: 'MOESTRO_HOST',
    help: 'address to listen on; "0.0.0.0" opens the server to the network: set a key then',
    fallback: '127.0.0.1',
    parse: address,
  },
  {
    key: 'port',
    flag: '--port <number>',
    env: 'MOESTRO_PORT',
    help: 'port to listen on; 0 takes a free one',
    fallback: '8080',
    parse: whole(0, 65_535),
  },
  {
    key: 'moreModels',
    flag: '--more-models <directories>',
    env: 'MOESTRO_MORE_MODELS',
    help: 'more .moe directories, comma separated, each loaded when a request names it; one model is in memory at a time',
    fallback: '',
    parse: paths,
    isPath: true,
  },
  {
    key: 'apiKeys',
    flag: '--api-key <keys>',
    env: 'MOESTRO_API_KEY',
    help: 'keys, comma separated, of which each request must carry one (the variable keeps them out of process lists)',
    fallback: '',
    parse: keys,
    isSecret: true,
    isLive: true,
  },
  {
    key: 'apiKeyFile',
    flag: '--api-key-file <file>',
    env: 'MOESTRO_API_KEY_FILE',
    help: 'a file with more keys, one a line, # before remarks; read again on SIGHUP',
    fallback: '',
    parse: path,
    isPath: true,
    isLive: true,
  },
  {
    key: 'keyRequestsPerMinute',
    flag: '--key-requests-per-minute <count>',
    env: 'MOESTRO_KEY_REQUESTS_PER_MINUTE',
    help: 'requests that one API key may send a minute, or "none" for no limit; a line of the key file may say another',
    fallback: 'none',
    parse: unless('none', whole(1, 1_000_000)),
    isLive: true,
  },
  {
    key: 'keyAtOnce',
    flag: '--key-at-once <count>',
    env: 'MOESTRO_KEY_AT_ONCE',
    help: 'requests of one API key under way at once, or "none" for no limit; a line of the key file may say another',
    fallback: 'none',
    parse: unless('none', whole(1, 1_000_000)),
    isLive: true,
  },
  {
    key: 'allowedHosts',
    flag: '--allowed-host <names>',
    env: 'MOESTRO_ALLOWED_HOST',
    help: 'names, comma separated, under which browsers may call a server on loopback beside "localhost" and addresses; "*" for any',
    fallback: '',
    parse: hostNames,
    isLive: true,
  },
  {
    key: 'corsOrigins',
    flag: '--cors-origin <origins>',
    env: 'MOESTRO_CORS_ORIGIN',
    help: 'web origins, comma separated, whose pages may call; pages served from this machine may, "*" lets all',
    fallback: '',
    parse: origins,
    isLive: true,
  },
  {
    key: 'bodyLimit',
    flag: '--body-limit <size>',
    env: 'MOESTRO_BODY_LIMIT',
    help: 'largest request body',
    fallback: '32MiB',
    parse: byteSize,
  },
  {
    key: 'pingSeconds',
    flag: '--ping-seconds <seconds>',
    env: 'MOESTRO_PING_SECONDS',
    help: 'seconds of silence after which a stream gets a comment line, so that clients do not give up',
    // Stall watchdogs of clients start at 20 s.
    fallback: '10',
    parse: whole(1, 3600),
  },
  {
    key: 'logLevel',
    flag: '--log-level <level>',
    env: 'MOESTRO_LOG_LEVEL',
    help: `what is logged to standard error: ${LOG_LEVELS.join(', ')}`,
    fallback: 'warn',
    parse: choice<LogLevel>(...LOG_LEVELS),
    isLive: true,
  },
];

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

export const flagName = (setting: Setting): string => setting.flag.replace(/ .*/, '');

/** The name of a setting in a configuration file. */
export const fileName = (setting: Setting): string => flagName(setting).replace(/^--/, '').toLowerCase();

/** Everything that a configuration file may say: one file serves all commands. */
export const ALL_SETTINGS: readonly Setting[] = [
  MODEL_SETTING,
  ...SERVER_SETTINGS,
  ...ENGINE_SETTINGS,
  ...SAMPLING_SETTINGS,
];
