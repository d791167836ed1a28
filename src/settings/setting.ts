/**
 * A setting is one row: flag, variable, help text, default and check. A flag beats its variable, a variable the configuration
 * file, the file the default. In the file a setting has the name of its flag.
 */
import type { Check } from './checks.js';

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

export const flagName = (setting: Setting): string => setting.flag.replace(/ .*/, '');

/** The name of a setting in a configuration file. */
export const fileName = (setting: Setting): string => flagName(setting).replace(/^--/, '').toLowerCase();
