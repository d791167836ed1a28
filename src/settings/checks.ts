/** Checks of settings: text of a flag, a variable or a file in, the value out, or what was needed in words. */
import { BYTE_FORMS, parseBytes } from '../bytes.js';
import { readSmallFile } from '../config/small-file.js';
import { MoestroError } from '../errors.js';
import { memoryLimitBytes } from '../machine.js';

/** What a configuration file may write a setting as. Text can be anything: "8GiB", "0.7", "on". */
export type Written = 'text' | 'number' | 'switch' | 'list';

/** Reads the text of a flag or variable; `name` is what the user wrote it under. Throws INVALID_CONFIG. */
export type Check<T = unknown> = ((text: string, name: string) => T) & {
  /** What is accepted, in words: "a whole number from 1 to 256". */
  readonly needed: string;
  readonly written: readonly Written[];
};

const refuse = (name: string, text: string, needed: string): never => {
  throw new MoestroError('INVALID_CONFIG', `Cannot use ${name} "${text}": needed ${needed}`, { name, found: text });
};

const check = <T>(
  written: readonly Written[],
  needed: string,
  read: (text: string, refuse: (found?: string) => never, name: string) => T,
): Check<T> =>
  Object.assign((text: string, name: string) => read(text, (found = text) => refuse(name, found, needed), name), {
    needed,
    written,
  });

export const choice = <T extends string>(...values: readonly T[]): Check<T> =>
  check(
    values.some((value) => /^\d/.test(value)) ? ['text', 'number'] : ['text'],
    `one of ${values.join(', ')}`,
    (text, no) => values.find((value) => value === text) ?? no(),
  );

export const whole = (least: number, most: number): Check<number> =>
  check(['text', 'number'], `a whole number from ${least} to ${most}`, (text, no) => {
    const value = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
    return value >= least && value <= most ? value : no();
  });

/** The word that leaves a choice to the engine becomes null. */
export const unless = <T>(word: string, parse: Check<T>): Check<T | null> =>
  check(parse.written, `${parse.needed}, or "${word}"`, (text, _no, name) => {
    if (text === word) return null;
    try {
      return parse(text, name);
    } catch (error) {
      if (!(error instanceof MoestroError)) throw error;
      throw new MoestroError(error.code, `${error.message}, or "${word}"`, error.details, error);
    }
  });

export const onOff = check(['text', 'switch'], '"on" or "off"', (text, no): boolean => {
  if (text === 'on' || text === 'true' || text === '1') return true;
  return text === 'off' || text === 'false' || text === '0' ? false : no();
});

const items = (text: string): readonly string[] =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');

/** A header carries it: visible ASCII without spaces. The key itself is not repeated in the error. */
export const isSendableKey = (key: string): boolean => /^[\x21-\x7e]+$/.test(key);

export const keys = check(['text', 'list'], 'keys of visible ASCII characters without spaces', (text, no) => {
  const all = items(text);
  return all.every(isSendableKey) ? all : no('(a key that no header can carry)');
});

export const origins = check(['text', 'list'], 'origins such as "http://localhost:3000", or "*" alone', (text, no) => {
  const all = items(text).map((item) => {
    if (item === '*') return item;
    const url = URL.canParse(item) ? new URL(item) : null;
    if (url === null || url.origin === 'null' || url.origin !== item.replace(/\/$/, '').toLowerCase()) return no(item);
    return url.origin;
  });
  return all.includes('*') && all.length > 1 ? no() : all;
});

export const hostNames = check(
  ['text', 'list'],
  'names such as "moestro.example.org" without a port, or "*" alone',
  (text, no) => {
    const all = items(text).map((item) =>
      item === '*' || /^[a-z\d]([\w.-]*[a-z\d])?$/i.test(item) ? item.toLowerCase() : no(item),
    );
    return all.includes('*') && all.length > 1 ? no() : all;
  },
);

const bits = choice('2', '3', '4', '8');
export const level = check(bits.written, bits.needed, (text, _no, name) => Number(bits(text, name)));

export const decimal = (least: number, most: number): Check<number> =>
  check(['text', 'number'], `a number from ${least} to ${most}`, (text, no) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    return value >= least && value <= most ? value : no();
  });

/** "@FILE" is looked into each time: a server reads it again on SIGHUP. */
export const budgetSize = check(['text', 'number'], BYTE_FORMS, (text, _no, name): number | null => {
  const value = text.startsWith('@') ? readSmallFile(text.slice(1), `${name} "${text}"`).trim() : text;
  return value === 'auto' ? null : parseBytes(value, name, memoryLimitBytes());
});

export const byteSize = check(['text', 'number'], BYTE_FORMS, (text, _no, name) =>
  parseBytes(text, name, memoryLimitBytes()),
);

/** An empty address would mean every network the machine is in. */
export const address = check(['text'], 'an address', (text, no) => (text === '' ? no() : text));

export const paths = check(['text', 'list'], 'paths of directories, comma separated', (text, no) =>
  text.includes('\0') ? no() : items(text),
);

export const path = check(['text'], 'the path of a file or directory', (text, no) =>
  text.includes('\0') ? no() : text,
);
