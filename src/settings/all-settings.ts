import { path } from './checks.js';
import { ENGINE_SETTINGS } from './engine-settings.js';
import { SAMPLING_SETTINGS } from './sampling-settings.js';
import { SERVER_SETTINGS } from './server-settings.js';
import type { Setting } from './setting.js';

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

/** Everything that a configuration file may say: one file serves all commands. */
export const ALL_SETTINGS: readonly Setting[] = [
  MODEL_SETTING,
  ...SERVER_SETTINGS,
  ...ENGINE_SETTINGS,
  ...SAMPLING_SETTINGS,
];
