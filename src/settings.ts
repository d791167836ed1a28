/**
 * The table of settings: flag, variable, help text, default and check of each stand in one row. A flag beats its
 * variable, a variable the default.
 */
import { readFileSync } from 'node:fs';
import { parseBytes } from './bytes.js';
import type { Mode, PrefetchMode } from './engine/types.js';
import { MoestroError } from './errors.js';
import { memoryLimitBytes } from './machine.js';
import type { IoBackend, Isa, KvType } from './native/binding.js';

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

/** Raw values by setting key, as commander or a caller of the library gives them. */
export type RawSettings = Readonly<Record<string, string | number | boolean | readonly string[] | null | undefined>>;
export type Environment = Readonly<Record<string, string | undefined>>;

export interface Setting {
  readonly key: string;
  /** With the placeholder of its value, as --help shows it. */
  readonly flag: string;
  readonly env: string;
  readonly help: string;
  /** Shown by --help; also the value, through `parse`, when neither flag nor variable is given. */
  readonly fallback: string;
  /** The checked value. `name` is what the user wrote it under. */
  readonly parse: (text: string, name: string) => unknown;
}

const refuse = (name: string, text: string, needed: string): never => {
  throw new MoestroError('INVALID_CONFIG', `Cannot use ${name} "${text}": needed ${needed}`, { name, found: text });
};

const choice =
  <T extends string>(...values: readonly T[]) =>
  (text: string, name: string): T => {
    const found = values.find((value) => value === text);
    return found ?? refuse(name, text, `one of ${values.join(', ')}`);
  };

const whole =
  (least: number, most: number) =>
  (text: string, name: string): number => {
    const value = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
    return value >= least && value <= most ? value : refuse(name, text, `a whole number from ${least} to ${most}`);
  };

/** "@FILE" is looked into each time: a server reads it again on SIGHUP. */
function budget(text: string, name: string): number | null {
  const value = text.startsWith('@') ? readSmallFile(text.slice(1), name).trim() : text;
  return unless('auto', (size, of) => parseBytes(size, of, memoryLimitBytes()))(value, name);
}

function readSmallFile(path: string, name: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? String(error);
    return refuse(name, `@${path}`, `a file that can be read: ${why}`);
  }
}

/** The word that leaves a choice to the engine becomes null. */
const unless =
  <T>(word: string, parse: (text: string, name: string) => T) =>
  (text: string, name: string): T | null => {
    if (text === word) return null;
    try {
      return parse(text, name);
    } catch (error) {
      if (!(error instanceof MoestroError)) throw error;
      throw new MoestroError(error.code, `${error.message}, or "${word}"`, error.details, error);
    }
  };

const onOff = (text: string, name: string): boolean => {
  if (text === 'on' || text === 'true' || text === '1') return true;
  if (text === 'off' || text === 'false' || text === '0') return false;
  return refuse(name, text, '"on" or "off"');
};

const list = (text: string): readonly string[] =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');

const origins = (text: string, name: string): readonly string[] =>
  list(text).map((item) => {
    if (item === '*') return item;
    const url = URL.canParse(item) ? new URL(item) : null;
    if (url === null || url.origin === 'null' || url.origin !== item.replace(/\/$/, '').toLowerCase()) {
      return refuse(name, item, 'origins such as "http://localhost:3000", or "*"');
    }
    return url.origin;
  });

const decimal =
  (least: number, most: number) =>
  (text: string, name: string): number => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    return value >= least && value <= most ? value : refuse(name, text, `a number from ${least} to ${most}`);
  };

/** An empty address would mean every network the machine is in. */
const nonEmpty = (value: string, name: string): string => (value === '' ? refuse(name, value, 'an address') : value);

/** What the engine is told: `moestro serve`, `chat`, `eval`, `bench` and loadModel() share these. */
export const ENGINE_SETTINGS: readonly Setting[] = [
  {
    key: 'budget',
    flag: '--budget <size>',
    env: 'MOESTRO_BUDGET',
    help: 'memory the whole process may take: "8GiB", "1.5GB", "60%", "@FILE" for a file that says so, or "auto" for what is free less a margin',
    fallback: 'auto',
    parse: budget,
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
    parse: unless('auto', (value, name) => Number(choice('2', '3', '4', '8')(value, name))),
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
    help: 'requests answered at once',
    fallback: '4',
    parse: whole(1, 256),
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
];

/** What the HTTP server is told. */
export const SERVER_SETTINGS: readonly Setting[] = [
  {
    key: 'host',
    flag: '--host <address>',
    env: 'MOESTRO_HOST',
    help: 'address to listen on; "0.0.0.0" opens the server to the network: set a key then',
    fallback: '127.0.0.1',
    parse: nonEmpty,
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
    key: 'apiKeys',
    flag: '--api-key <keys>',
    env: 'MOESTRO_API_KEY',
    help: 'keys, comma separated, of which each request must carry one (the variable keeps them out of process lists)',
    fallback: '',
    parse: list,
  },
  {
    key: 'corsOrigins',
    flag: '--cors-origin <origins>',
    env: 'MOESTRO_CORS_ORIGIN',
    help: 'web origins, comma separated, whose pages may call; pages served from this machine may, "*" lets all',
    fallback: '',
    parse: origins,
  },
  {
    key: 'bodyLimit',
    flag: '--body-limit <size>',
    env: 'MOESTRO_BODY_LIMIT',
    help: 'largest request body',
    fallback: '32MiB',
    parse: (value, name) => parseBytes(value, name, memoryLimitBytes()),
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
  },
  {
    key: 'topK',
    flag: '--top-k <count>',
    env: 'MOESTRO_TOP_K',
    help: 'draw from so many of the likeliest tokens; 0 for all',
    fallback: '40',
    parse: whole(0, 1 << 24),
  },
  {
    key: 'topP',
    flag: '--top-p <share>',
    env: 'MOESTRO_TOP_P',
    help: 'draw from the likeliest tokens that hold this share of the probability',
    fallback: '0.95',
    parse: decimal(0, 1),
  },
  {
    key: 'minP',
    flag: '--min-p <share>',
    env: 'MOESTRO_MIN_P',
    help: 'leave out tokens below this share of the likeliest one',
    fallback: '0.05',
    parse: decimal(0, 1),
  },
  {
    key: 'repeatPenalty',
    flag: '--repeat-penalty <number>',
    env: 'MOESTRO_REPEAT_PENALTY',
    help: 'above 1 makes tokens of the last 64 less likely',
    fallback: '1',
    parse: decimal(0.01, 10),
  },
  {
    key: 'seed',
    flag: '--seed <number>',
    env: 'MOESTRO_SEED',
    help: 'the same seed draws the same answer; "random" draws another each time',
    fallback: 'random',
    parse: unless('random', whole(0, Number.MAX_SAFE_INTEGER)),
  },
  {
    key: 'maxTokens',
    flag: '--max-tokens <count>',
    env: 'MOESTRO_MAX_TOKENS',
    help: 'longest answer, or "auto" for as long as the context lasts',
    fallback: 'auto',
    parse: unless('auto', whole(1, 1 << 24)),
  },
];

/**
 * Looks settings up by key: a raw value, else the variable, else the default; each through its check.
 *
 * @throws {MoestroError} INVALID_CONFIG naming the flag or variable, what was found and what was needed; at once when
 *     `raw` has a key that no setting has.
 */
export function settingsReader(
  settings: readonly Setting[],
  raw: RawSettings,
  env: Environment,
): (key: string) => unknown {
  const unknown = Object.keys(raw).find((key) => raw[key] !== undefined && !settings.some((s) => s.key === key));
  if (unknown !== undefined) {
    const known = settings.map((setting) => setting.key).join(', ');
    throw new MoestroError('INVALID_CONFIG', `Cannot use the option "${unknown}": needed one of ${known}`, {
      name: unknown,
    });
  }
  return (key) => {
    const setting = settings.find((candidate) => candidate.key === key);
    if (setting === undefined) throw new Error(`no setting ${key}`);
    const given = raw[key];
    if (given !== undefined && given !== null) return setting.parse(String(given), flagName(setting));
    const variable = env[setting.env];
    // An empty variable is one that was not set: that is how compose files and shells clear them.
    if (variable !== undefined && variable !== '') return setting.parse(variable, setting.env);
    return setting.parse(setting.fallback, flagName(setting));
  };
}

export const flagName = (setting: Setting): string => setting.flag.replace(/ .*/, '');
