/** Finds, reads and checks the configuration file: moestro.yaml, .yml, .toml or .json. */
import { existsSync } from 'node:fs';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { MoestroError } from '../errors.js';
import { ALL_SETTINGS } from '../settings/all-settings.js';
import type { Written } from '../settings/checks.js';
import type { ConfigFile, Environment, FileEntry } from '../settings/find.js';
import { fileName, type Setting } from '../settings/setting.js';
import { closest } from './closest.js';
import { type ParseFile, parseToml, parseYaml, type RawEntry } from './parse-file.js';
import { readSmallFile } from './small-file.js';

const PARSERS: Readonly<Record<string, ParseFile>> = {
  '.yaml': parseYaml,
  '.yml': parseYaml,
  // JSON is YAML: one reader gives the place of each name in both.
  '.json': parseYaml,
  '.toml': parseToml,
};
const ENDINGS = Object.keys(PARSERS).join(', ');

/**
 * The file that is named by --config or MOESTRO_CONFIG, or else the one called moestro.yaml (.yml, .json, .toml) in the
 * working directory; null when there is none.
 *
 * @throws {MoestroError} INVALID_CONFIG naming file, line and name of every mistake, what was found and what was needed.
 */
export async function loadConfigFile(
  flag: string | undefined,
  env: Environment,
  folder = '.',
): Promise<ConfigFile | null> {
  refuseMistypedVariables(env);
  const variable = env.MOESTRO_CONFIG === '' ? undefined : env.MOESTRO_CONFIG;
  const path = flag ?? variable ?? foundIn(folder);
  if (path === null) return null;
  const parse = PARSERS[extname(path).toLowerCase()];
  if (parse === undefined) {
    const given = flag === undefined ? 'MOESTRO_CONFIG' : '--config';
    const found = extname(path) === '' ? 'no ending' : `the ending "${extname(path)}"`;
    throw new MoestroError(
      'INVALID_CONFIG',
      `Cannot use ${given} "${path}": found ${found}, needed one of ${ENDINGS}`,
      {
        path,
      },
    );
  }
  const text = readSmallFile(path, `the configuration "${path}"`);
  const name = basename(path) === path.replace(/^\.\//, '') ? basename(path) : path;
  return { path, entries: checkEntries(await parse(text, name), name, dirname(resolve(path))) };
}

function foundIn(folder: string): string | null {
  const found = Object.keys(PARSERS)
    .map((ending) => join(folder, `moestro${ending}`))
    .filter((path) => existsSync(path));
  if (found.length < 2) return found[0] ?? null;
  const names = found.map((path) => `"${path}"`).join(' and ');
  throw new MoestroError(
    'INVALID_CONFIG',
    `Cannot choose a configuration: found ${names}, needed one, or --config FILE`,
  );
}

/** Every mistake at once: who mends a file does not want to start the server after each. */
function checkEntries(raw: readonly RawEntry[], name: string, folder: string): ReadonlyMap<string, FileEntry> {
  const entries = new Map<string, FileEntry>();
  const problems: string[] = [];
  for (const entry of raw) {
    const where = `${name}:${entry.line}:${entry.column}`;
    try {
      const setting = settingNamed(entry, where);
      const text = textOf(setting, entry.value, where);
      setting.parse(text, `${fileName(setting)} (${where})`);
      entries.set(setting.key, { text: setting.isPath === true ? resolved(text, setting, folder) : text, where });
    } catch (error) {
      if (!(error instanceof MoestroError)) throw error;
      problems.push(error.message);
    }
  }
  if (problems.length > 0) throw new MoestroError('INVALID_CONFIG', problems.join('\n'), { problems });
  return entries;
}

/** Paths of the file are taken from its folder. */
function resolved(text: string, setting: Setting, folder: string): string {
  if (setting.words?.includes(text)) return text;
  if (!setting.parse.written.includes('list')) return resolve(folder, text);
  return text
    .split(',')
    .filter((item) => item.trim() !== '')
    .map((item) => resolve(folder, item.trim()))
    .join(',');
}

function settingNamed({ key, value }: RawEntry, where: string): Setting {
  const setting = ALL_SETTINGS.find((candidate) => fileName(candidate) === key);
  if (setting !== undefined) return setting;
  const names = ALL_SETTINGS.map(fileName);
  const meant = closest(key, names);
  const isGroup = typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
  const needed =
    meant !== null
      ? `did you mean "${meant}"?`
      : isGroup
        ? 'found a group, needed settings without one'
        : `needed one of ${names.join(', ')}`;
  throw new MoestroError('INVALID_CONFIG', `Cannot use "${key}" (${where}): there is no such setting; ${needed}`, {
    key,
  });
}

/** The value as a flag would have it: files have types, flags have text. */
function textOf(setting: Setting, value: unknown, where: string): string {
  const { written, needed } = setting.parse;
  const refuse = (found: string, wanted = needed): never => {
    const name = fileName(setting);
    throw new MoestroError('INVALID_CONFIG', `Cannot use ${name} (${where}): found ${found}, needed ${wanted}`, {
      name,
    });
  };
  if (value === null || value === undefined) return refuse('nothing');
  if (Array.isArray(value)) {
    if (!written.includes('list')) return refuse(`the list ${JSON.stringify(value)}`);
    const odd = value.find((item) => typeof item !== 'string' || item === '' || item.includes(','));
    if (odd !== undefined)
      return refuse(
        `${setting.isSecret === true ? `${typeof odd} that is no key` : shown(odd)} in the list`,
        `a list of texts: ${needed}`,
      );
    return value.join(',');
  }
  const kind: Written | undefined = KINDS[typeof value];
  if (kind !== undefined && written.includes(kind)) return String(value);
  // A key written as a number has lost its zeros, a yes its spelling.
  return refuse(
    setting.isSecret === true ? `a ${typeof value}` : shown(value),
    kind === undefined ? needed : `${needed}${written.includes('text') ? ' (text stands in quotes)' : ''}`,
  );
}

const KINDS: Readonly<Record<string, Written>> = { string: 'text', number: 'number', boolean: 'switch' };

function shown(value: unknown): string {
  if (typeof value === 'string') return `"${value}"`;
  if (typeof value === 'number') return `the number ${value}`;
  if (typeof value === 'boolean') return `the word ${value}`;
  if (value instanceof Date) return `the date ${value.toISOString()}`;
  return typeof value === 'object' ? 'a group' : `a ${typeof value}`;
}

/**
 * A variable that is nearly one of ours was meant to be it. Others that begin with MOESTRO_ are let be: Kubernetes makes
 * variables of that shape for a service called moestro.
 */
function refuseMistypedVariables(env: Environment): void {
  const known = ['MOESTRO_CONFIG', ...ALL_SETTINGS.map((setting) => setting.env)];
  for (const name of Object.keys(env)) {
    if (!name.startsWith('MOESTRO_') || known.includes(name) || env[name] === '') continue;
    const own = name.slice('MOESTRO_'.length);
    const meant = closest(
      own,
      known.map((one) => one.slice('MOESTRO_'.length)),
    );
    if (meant === null) continue;
    throw new MoestroError(
      'INVALID_CONFIG',
      `Cannot use the variable ${name}: there is no such setting; did you mean MOESTRO_${meant}?`,
      { name },
    );
  }
}
