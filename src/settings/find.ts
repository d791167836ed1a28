/** Which of flag, variable, file and default gives a setting its value. */
import { MoestroError } from '../errors.js';
import { fileName, flagName, type Setting } from './setting.js';

/** Raw values by setting key, as commander or a caller of the library gives them. */
export type RawSettings = Readonly<Record<string, string | number | boolean | readonly string[] | null | undefined>>;
export type Environment = Readonly<Record<string, string | undefined>>;

/** What a configuration file says of one setting. */
export interface FileEntry {
  readonly text: string;
  /** "moestro.yaml:3:1" */
  readonly where: string;
}

/** Entries by key of the setting; every one has passed the check of its setting. */
export interface ConfigFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, FileEntry>;
}

/** Where settings come from, the strongest first; the defaults stand in the table. */
export interface Sources {
  readonly raw: RawSettings;
  readonly env: Environment;
  readonly file: ConfigFile | null;
}

export interface Found {
  readonly text: string;
  /** As errors name it: "--port", "MOESTRO_PORT", "port (moestro.yaml:3:1)". */
  readonly name: string;
  /** "--port", "MOESTRO_PORT", "moestro.yaml:3:1" or "default". */
  readonly origin: string;
}

/** The text of a setting and where it stands. */
export function findSetting(setting: Setting, { raw, env, file }: Sources): Found {
  const flag = flagName(setting);
  const given = raw[setting.key];
  if (given !== undefined && given !== null) return { text: String(given), name: flag, origin: flag };
  const variable = env[setting.env];
  // An empty variable is one that was not set: that is how compose files and shells clear them.
  if (variable !== undefined && variable !== '') return { text: variable, name: setting.env, origin: setting.env };
  const entry = file?.entries.get(setting.key);
  if (entry !== undefined) {
    return { text: entry.text, name: `${fileName(setting)} (${entry.where})`, origin: entry.where };
  }
  return { text: setting.fallback, name: flag, origin: 'default' };
}

/**
 * Looks settings up by key: a raw value, else the variable, else the file, else the default; each through its check.
 *
 * @throws {MoestroError} INVALID_CONFIG naming the flag, variable or line, what was found and what was needed; at once
 *     when `raw` has a key that no setting has.
 */
export function settingsReader(settings: readonly Setting[], sources: Sources): (key: string) => unknown {
  const { raw } = sources;
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
    const { text, name } = findSetting(setting, sources);
    return setting.parse(text, name);
  };
}
