/** Flags, environment and defaults to one validated, frozen configuration; the settings themselves: settings.ts. */
import { availableParallelism } from 'node:os';
import { type EngineConfig, GREEDY, type Mode, type PrefetchMode, type Sampling } from './engine/types.js';
import type { IoBackend, Isa, KvType, Level } from './native/binding.js';
import {
  ENGINE_SETTINGS,
  type Environment,
  type LogLevel,
  type RawSettings,
  SAMPLING_SETTINGS,
  SERVER_SETTINGS,
  settingsReader,
} from './settings.js';

export interface ServerConfig {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** Keys of which a request must carry one; empty for no check. */
  readonly apiKeys: readonly string[];
  /** Origins a browser page may call from; '*' for any. Pages served from this machine always may. */
  readonly corsOrigins: readonly string[];
  readonly bodyLimitBytes: number;
  /** Seconds of silence after which a stream gets a comment line. */
  readonly pingSeconds: number;
  readonly logLevel: LogLevel;
}

/**
 * The engine's configuration.
 *
 * @param modelPath the `.moe` directory.
 * @param raw flags or library options by key; absent or null ones fall to the environment, then to the default.
 * @throws {MoestroError} INVALID_CONFIG naming the flag or variable, what was found and what was needed.
 */
export function engineConfig(modelPath: string, raw: RawSettings = {}, env: Environment = process.env): EngineConfig {
  const get = settingsReader(ENGINE_SETTINGS, raw, env);
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
    chunkTokens: get('chunk') as number,
    maxSequences: get('maxSequences') as number,
    maxQueued: get('maxQueued') as number,
    io: Object.freeze({
      backend: get('io') as IoBackend,
      queueDepth: get('queueDepth') as number,
      direct: get('directIo') as boolean,
    }),
    prefetch: get('prefetch') as PrefetchMode,
    maxResidentExperts: get('maxResidentExperts') as number | null,
    routingTrace: null,
  });
}

/** The server's configuration; errors as {@link engineConfig}. */
export function serverConfig(raw: RawSettings = {}, env: Environment = process.env): ServerConfig {
  const get = settingsReader(SERVER_SETTINGS, raw, env);
  return Object.freeze({
    host: get('host') as string,
    port: get('port') as number,
    apiKeys: Object.freeze(get('apiKeys') as string[]),
    corsOrigins: Object.freeze(get('corsOrigins') as string[]),
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
export function samplingConfig(raw: RawSettings = {}, env: Environment = process.env): SamplingConfig {
  const get = settingsReader(SAMPLING_SETTINGS, raw, env);
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
