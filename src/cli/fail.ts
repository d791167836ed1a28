/** Errors as people read them in a terminal: one line that says what is wrong, one that says what to do. */
import { ERRORS, type ErrorCode, toMoestroError } from '../errors.js';

const HINTS: Partial<Record<ErrorCode, string>> = {
  PORT_IN_USE: 'choose another with --port, or --port 0 for any free one',
  BUDGET_BELOW_FLOOR: 'raise --budget, or lower what the model needs with --level, --context or --kv int8',
  CONTEXT_LENGTH_EXCEEDED: 'shorten the prompt, or raise --context where the model allows more',
  OUT_OF_MEMORY: 'lower --budget so that it fits this machine',
  MODEL_INVALID: 'a model is a directory NAME.moe, made by: moestro convert SOURCE NAME.moe',
  MODEL_VERSION: 'convert the model again with this version of moestro',
  MODEL_CORRUPT: 'copy or convert the model again: its bytes are not those that were written',
  UNSUPPORTED_ARCHITECTURE: 'the supported families are those listed above',
  EXPERT_READ_FAILED: 'moestro inspect MODEL --verify tells a damaged model from a failing disk',
  DISK_FULL: 'free some space and run the same command again: conversion goes on where it stopped',
  OUTPUT_EXISTS: 'choose another name, or remove what is there',
  IO_UNAVAILABLE: 'try --io pread',
  ADDON_MISSING: 'run: npm run build:native, or npm rebuild moestro where it is a dependency',
  INVALID_CONFIG: 'the accepted values are listed by --help, what is in force by: moestro config show --origin',
};

/** Messages quote files and flags, which may hold bytes that a terminal obeys. */
const printable = (text: string): string =>
  text.replace(/[\p{Cc}\p{Cf}]/gu, (character) => (character === '\n' ? character : '\ufffd'));

/** Prints the error to standard error and returns the exit status. */
export function fail(thrown: unknown): number {
  const error = toMoestroError(thrown);
  const hint = HINTS[error.code];
  const lines = [`moestro: ${printable(error.message)}`, ...(hint === undefined ? [] : [`  hint: ${hint}`])];
  // Only what nobody foresaw shows its stack.
  if (error.code === 'INTERNAL' && error.cause instanceof Error) lines.push(error.cause.stack ?? '');
  process.stderr.write(`${lines.join('\n')}\n`);
  return ERRORS[error.code].exit;
}
