/** Flags, variables, file and defaults to one validated, frozen configuration; the settings themselves: settings/. */
import { availableParallelism } from 'node:os';
import { isAbsolute, join } from 'node:path';
import {
  type EngineConfig,
  type GearMode,
  GREEDY,
  type Mode,
  type PrefetchMode,
  type PrefixConfig,
  type Sampling,
} from './engine/types.js';
import { MoestroError } from './errors.js';
import type { IoBackend, Isa, KvType, Level } from './native/binding.js';
import { type KeyLimits, readKeyFile } from './config/key-file.js';
import { ENGINE_SETTINGS } from './settings/engine-settings.js';
import { SAMPLING_SETTINGS } from './settings/sampling-settings.js';
import { type LogLevel, SERVER_SETTINGS } from './settings/server-settings.js';
import type { Setting } from './settings/setting.js';
import {
  type ConfigFile,
  type Environment,
  findSetting,
  type RawSettings,
  type Sources,
  settingsReader,
} from './settings/find.js';

export interface ServerConfig {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** Models beside the first: `.moe` directories. */
  readonly moreModels: readonly string[];
  /** Keys of which a request must carry one; empty for no check. */
  readonly apiKeys: readonly string[];
  /** What a key may ask for where its line in the key file says nothing, and by key where it does. */
  readonly keyLimits: KeyLimits & { readonly byKey: ReadonlyMap<string, Partial<KeyLimits>> };
  /** Origins a browser page may call from; '*' for any. Pages served from this machine always may. */
  readonly corsOrigins: readonly string[];
  /** Names under which a server on loopback may be called, beside localhost and addresses; '*' for any. */
  readonly allowedHosts: readonly string[];
  readonly bodyLimitBytes: number;
  /** Seconds of silence after which a stream gets a comment line. */
  readonly pingSeconds: number;
  readonly logLevel: LogLevel;
}

/**
 * The engine's configuration.
 *
 * @param modelPath the `.moe` directory.
 * @param raw flags or library options by key; absent or null ones fall to the environment, the file, the default.
 * @param file the configuration file, where there is one.
 * @param prefixHome the folder for prefixes that no setting names; null for memory only.
 * @throws {MoestroError} INVALID_CONFIG naming the flag or variable, what was found and what was needed.
 */
export function engineConfig(
  modelPath: string,
  raw: RawSettings = {},
  env: Environment = process.env,
  file: ConfigFile | null = null,
  prefixHome: string | null = null,
): EngineConfig {
  const sources = { raw, env, file };
  const get = settingsReader(ENGINE_SETTINGS, sources);
  refuseBitsAboveLevel(sources, get('meanBits') as number | null, get('level') as number | null);
  return Object.freeze({
    modelPath,
    budgetBytes: get('budget') as number | null,
    threads: (get('threads') as number | null) ?? Math.min(256, availableParallelism()),
    isa: get('isa') as Isa | null,
    level: get('level') as Level | null,
    mode: get('mode') as Mode,
    meanBits: get('meanBits') as number | null,
    targetTps: get('targetTps') as number | null,
    contextLength: get('context') as number | null,
    kvType: get('kv') as KvType,
    prefix: prefixConfig(get, prefixHome),
    chunkTokens: get('chunk') as number,
    maxSequences: get('maxSequences') as number | null,
    maxQueued: get('maxQueued') as number,
    gear: get('gear') as GearMode,
    tokenGapMs: get('tokenGap') as number,
    io: Object.freeze({
      backend: get('io') as IoBackend,
      queueDepth: get('queueDepth') as number,
      direct: get('directIo') as boolean,
    }),
    prefetch: get('prefetch') as PrefetchMode,
    maxResidentExperts: get('maxResidentExperts') as number | null,
    routingTrace: null,
    recordTrace: (get('recordTrace') as string) || null,
  });
}

function prefixConfig(get: (key: string) => unknown, home: string | null): PrefixConfig | null {
  if (get('prefixCache') === false) return null;
  const directory = get('prefixDir') as string;
  return Object.freeze({
    memoryBytes: get('prefixMemory') as number | null,
    directory: directory === 'auto' ? home : directory === 'off' ? null : directory,
    diskBytes: get('prefixDisk') as number,
    dailyBytes: get('prefixDailyWrites') as number,
  });
}

/** The cache folder of the user, by the rules of freedesktop.org; null for a user without a home. */
export function defaultPrefixHome(env: Environment = process.env): string | null {
  const cache = env.XDG_CACHE_HOME || (env.HOME ? join(env.HOME, '.cache') : '');
  return isAbsolute(cache) ? join(cache, 'moestro', 'prefixes') : null;
}

/** The server's configuration; errors as {@link engineConfig}. */
export function serverConfig(
  raw: RawSettings = {},
  env: Environment = process.env,
  file: ConfigFile | null = null,
): ServerConfig {
  const sources = { raw, env, file };
  const get = settingsReader(SERVER_SETTINGS, sources);
  const keyFile = get('apiKeyFile') as string;
  const nameOfKeyFile = findSetting(settingOf(SERVER_SETTINGS, 'apiKeyFile'), sources).name;
  const byKey = keyFile === '' ? new Map<string, Partial<KeyLimits>>() : readKeyFile(keyFile, nameOfKeyFile);
  return Object.freeze({
    host: get('host') as string,
    port: get('port') as number,
    moreModels: Object.freeze(get('moreModels') as string[]),
    apiKeys: Object.freeze([...(get('apiKeys') as string[]), ...byKey.keys()]),
    keyLimits: Object.freeze({
      requestsPerMinute: get('keyRequestsPerMinute') as number | null,
      atOnce: get('keyAtOnce') as number | null,
      byKey,
    }),
    corsOrigins: Object.freeze(get('corsOrigins') as string[]),
    allowedHosts: Object.freeze(get('allowedHosts') as string[]),
    bodyLimitBytes: get('bodyLimit') as number,
    pingSeconds: get('pingSeconds') as number,
    logLevel: get('logLevel') as LogLevel,
  });
}

export interface SamplingConfig {
  readonly sampling: Sampling;
  readonly maxTokens: number | null;
}

/** How answers are drawn where no request says otherwise; errors as {@link engineConfig}. */
export function samplingConfig(
  raw: RawSettings = {},
  env: Environment = process.env,
  file: ConfigFile | null = null,
): SamplingConfig {
  const get = settingsReader(SAMPLING_SETTINGS, { raw, env, file });
  return Object.freeze({
    sampling: Object.freeze({
      ...GREEDY,
      temperature: get('temperature') as number,
      topK: get('topK') as number,
      topP: get('topP') as number,
      minP: get('minP') as number,
      repetitionPenalty: get('repeatPenalty') as number,
      seed: get('seed') as number | null,
    }),
    maxTokens: get('maxTokens') as number | null,
  });
}

const settingOf = (settings: readonly Setting[], key: string): Setting => settings.find((one) => one.key === key)!;

/** Two settings that are fine alone and contradict each other are both named. */
function refuseBitsAboveLevel(sources: Sources, meanBits: number | null, level: number | null): void {
  if (meanBits === null || level === null || meanBits <= level) return;
  const [bits, full] = (['meanBits', 'level'] as const).map((key) =>
    findSetting(settingOf(ENGINE_SETTINGS, key), sources),
  );
  throw new MoestroError(
    'INVALID_CONFIG',
    `Cannot use ${bits!.name} "${bits!.text}" with ${full!.name} "${full!.text}": needed mean bits of the level at most`,
  );
}
