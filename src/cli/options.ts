/** Rows of the settings table as commander's options, and their values back by key. */
import { type Command, Option } from 'commander';
import type { RawSettings, Setting } from '../settings.js';

/** Values stay as they were written: config.ts checks flags and variables in one place. */
export function addSettings(command: Command, settings: readonly Setting[]): Command {
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
