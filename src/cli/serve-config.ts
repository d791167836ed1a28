/** Everything `moestro serve` is told, from flags, variables and the configuration file, and reading it again. */
import { defaultPrefixHome, engineConfig, type ServerConfig, samplingConfig, serverConfig } from '../config.js';
import type { EngineConfig, Sampling } from '../engine/types.js';
import { MoestroError } from '../errors.js';
import { MODEL_SETTING } from '../settings/all-settings.js';
import { ENGINE_SETTINGS } from '../settings/engine-settings.js';
import { type Found, findSetting, settingsReader } from '../settings/find.js';
import { SAMPLING_SETTINGS } from '../settings/sampling-settings.js';
import { SERVER_SETTINGS } from '../settings/server-settings.js';
import { fileName, type Setting } from '../settings/setting.js';
import { BUNDLED_MODEL } from './bundled.js';
import { configFileOf, givenSettings } from './options.js';

/** A server leaves the length of answers to its requests. */
export const DRAWING_SETTINGS = SAMPLING_SETTINGS.filter(({ key }) => key !== 'maxTokens');
export const SERVE_SETTINGS: readonly Setting[] = [...SERVER_SETTINGS, ...ENGINE_SETTINGS, ...DRAWING_SETTINGS];

export interface ServeConfig {
  readonly engine: EngineConfig;
  readonly server: ServerConfig;
  readonly sampling: Sampling;
  /** Of every setting: what it was written as and where. */
  readonly found: ReadonlyMap<Setting, Found>;
}

export type ServeOptions = Readonly<Record<string, string | undefined>>;

/** @throws {MoestroError} INVALID_CONFIG naming where the mistake stands. */
export async function readServeConfig(model: string | undefined, options: ServeOptions): Promise<ServeConfig> {
  const { env } = process;
  const file = await configFileOf(options);
  const modelSources = { raw: { model }, env, file };
  const modelPath = settingsReader([MODEL_SETTING], modelSources)('model') as string;
  const raw = givenSettings(options, SERVE_SETTINGS);
  const config = {
    engine: engineConfig(
      modelPath === '' ? BUNDLED_MODEL : modelPath,
      givenSettings(options, ENGINE_SETTINGS),
      env,
      file,
      defaultPrefixHome(env),
    ),
    server: serverConfig(givenSettings(options, SERVER_SETTINGS), env, file),
    sampling: samplingConfig(givenSettings(options, DRAWING_SETTINGS), env, file).sampling,
    found: new Map([
      [MODEL_SETTING, findSetting(MODEL_SETTING, modelSources)],
      ...SERVE_SETTINGS.map((setting) => [setting, findSetting(setting, { raw, env, file })] as const),
    ]),
  };
  refuseBodiesAboveBudget(config);
  return config;
}

/** A body that is larger than all the memory there may be could never be read. */
function refuseBodiesAboveBudget({ engine, server, found }: ServeConfig): void {
  if (engine.budgetBytes === null || server.bodyLimitBytes <= engine.budgetBytes) return;
  const [limit, budget] = (['bodyLimit', 'budget'] as const).map(
    (key) => found.get(SERVE_SETTINGS.find((setting) => setting.key === key)!)!,
  );
  throw new MoestroError(
    'INVALID_CONFIG',
    `Cannot use ${limit!.name} "${limit!.text}" with ${budget!.name} "${budget!.text}": needed a limit below the budget`,
  );
}

/** Is told of a new configuration; takes from it what can change while the server runs. */
export type OnReload = (config: ServeConfig, before: ServeConfig) => void | Promise<void>;

/** The configuration in force, and those who want to know when it is another. */
export class LiveConfig {
  #current: ServeConfig;
  readonly #read: () => Promise<ServeConfig>;
  readonly #listeners: OnReload[] = [];
  /** Two signals in a row are taken one after the other. */
  #last: Promise<string> = Promise.resolve('');

  constructor(current: ServeConfig, read: () => Promise<ServeConfig>) {
    this.#current = current;
    this.#read = read;
  }

  get current(): ServeConfig {
    return this.#current;
  }

  onReload(listener: OnReload): void {
    this.#listeners.push(listener);
  }

  /**
   * Reads everything again and tells the listeners. With a mistake in it nothing changes. Never throws.
   *
   * @returns what happened, in words for the terminal.
   */
  reload(): Promise<string> {
    this.#last = this.#last.then(() => this.#reload());
    return this.#last;
  }

  async #reload(): Promise<string> {
    try {
      const before = this.#current;
      const next = await this.#read();
      for (const listener of this.#listeners) await listener(next, before);
      this.#current = next;
      return describeReload(before, next);
    } catch (error) {
      return `the configuration stays as it was: ${error instanceof Error ? error.message : String(error)}`;
    }
  }
}

function describeReload(before: ServeConfig, next: ServeConfig): string {
  const isOther = (setting: Setting): boolean => before.found.get(setting)?.text !== next.found.get(setting)?.text;
  const changed = [...next.found.keys()].filter(isOther);
  const live = changed.filter(({ isLive }) => isLive === true).map(fileName);
  const late = changed.filter(({ isLive }) => isLive !== true).map(fileName);
  // The file of keys may have kept its name and lost a key.
  const hasOtherKeys = before.server.apiKeys.join('\n') !== next.server.apiKeys.join('\n');
  if (hasOtherKeys && !live.some((name) => name.startsWith('api-key'))) live.push('api keys');
  // So has a share of the machine, or the file that says the budget.
  if (before.engine.budgetBytes !== next.engine.budgetBytes && !live.includes('budget')) live.push('budget');
  const parts = [
    ...(live.length > 0 ? [`now in force: ${live.join(', ')}`] : []),
    ...(late.length > 0 ? [`needs a restart: ${late.join(', ')}`] : []),
  ];
  return `read the configuration again: ${parts.length > 0 ? parts.join('; ') : 'nothing changed'}`;
}
