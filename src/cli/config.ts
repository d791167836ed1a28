/** `moestro config show` and `moestro config check`: which settings are in force and why, and whether a file is right. */
import { Argument, Command } from 'commander';
import { loadConfigFile } from '../config/config-file.js';
import { MoestroError } from '../errors.js';
import type { Found } from '../settings/find.js';
import { fileName, type Setting } from '../settings/setting.js';
import { addSettings } from './options.js';
import { readServeConfig, SERVE_SETTINGS, type ServeOptions } from './serve-config.js';

export function configCommand(): Command {
  const command = new Command('config').description(
    'Settings come from flags, MOESTRO_* variables and one file; a flag beats a variable, a variable the file.',
  );
  const show = new Command('show')
    .summary('print every setting that is in force')
    .description('Prints the settings that moestro serve would have with the same flags, as a configuration file.')
    .addArgument(new Argument('[model]', 'a .moe directory'))
    .option('--origin', 'say where each comes from');
  addSettings(show, SERVE_SETTINGS);
  show.addHelpText(
    'after',
    '\nExamples:\n  moestro config show --origin\n  moestro config show --budget 8GiB > moestro.yaml',
  );
  show.action(async (model: string | undefined, options: ServeOptions & { readonly origin?: boolean }) => {
    const { found } = await readServeConfig(model, options);
    process.stdout.write(describeSettings(found, options.origin === true));
  });
  command.addCommand(show);
  const check = new Command('check')
    .summary('check a configuration file')
    .description('Says every mistake in a configuration file, with its line, and exits with 2 when there is one.')
    .argument('[file]', 'the file (default: the one that moestro serve would take here)')
    .addHelpText('after', '\nExample:\n  moestro config check moestro.yaml');
  check.action(checkFile);
  return command.addCommand(check);
}

async function checkFile(path: string | undefined): Promise<void> {
  const file = await loadConfigFile(path, process.env);
  if (file === null) {
    throw new MoestroError(
      'INVALID_CONFIG',
      'Cannot check a configuration: found none here, needed the name of a file',
    );
  }
  // Beyond the lines each by itself: settings that contradict each other, a file of keys.
  await readServeConfig(undefined, { config: file.path });
  const count = file.entries.size;
  process.stdout.write(`${file.path}: fine, ${count} ${count === 1 ? 'setting' : 'settings'}\n`);
}

/** Lines of YAML that say the same when they are read as a file. Secrets are left out. */
export function describeSettings(found: ReadonlyMap<Setting, Found>, withOrigin: boolean): string {
  const rows = [...found].map(([setting, { text, origin }]) => {
    const name = fileName(setting);
    const isHidden = setting.isSecret === true && text !== '';
    const isEmpty = text === '';
    const line = isHidden ? `# ${name}: (not shown)` : isEmpty ? `# ${name}:` : `${name}: ${yamlText(text)}`;
    return { line, origin };
  });
  const width = Math.max(...rows.map(({ line }) => line.length));
  return rows.map(({ line, origin }) => (withOrigin ? `${line.padEnd(width)}  # ${origin}\n` : `${line}\n`)).join('');
}

const yamlText = (text: string): string =>
  /^[\w./-]*\w%?$/.test(text) && !/^(null|~|0\d)/.test(text) ? text : JSON.stringify(text);
