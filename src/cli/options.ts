/** Rows of the settings table as commander's options, and their values back by key. */
import { type Command, Option } from 'commander';
import { loadConfigFile } from '../config/config-file.js';
import type { ConfigFile, RawSettings } from '../settings/find.js';
import type { Setting } from '../settings/setting.js';

/** Values stay as they were written: config.ts checks flags and variables in one place. */
export function addSettings(command: Command, settings: readonly Setting[]): Command {
  const configHelp = 'settings as YAML, TOML or JSON (default ./moestro.yaml, .yml, .toml or .json; MOESTRO_CONFIG)';
  command.option('--config <file>', configHelp);
  for (const { flag, help, env, fallback } of settings) {
    const facts = [...(fallback === '' ? [] : [`default ${fallback}`]), env].join(', ');
    command.addOption(new Option(flag, `${help} (${facts})`));
  }
  return command;
}

/** What was given for `settings` on the command line, by setting key. */
export function givenSettings(
  options: Readonly<Record<string, string | undefined>>,
  settings: readonly Setting[],
): RawSettings {
  return Object.fromEntries(settings.map(({ key, flag }) => [key, options[new Option(flag).attributeName()]] as const));
}

/** The file of --config, of MOESTRO_CONFIG or of the working directory; errors as loadConfigFile. */
export const configFileOf = (options: Readonly<Record<string, unknown>>): Promise<ConfigFile | null> =>
  loadConfigFile(typeof options.config === 'string' ? options.config : undefined, process.env);
