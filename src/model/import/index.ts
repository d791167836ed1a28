/** Which kind of model lies at a path? The one door to sources of conversion. */
import { type Stats, statSync } from 'node:fs';
import { join } from 'node:path';
import { MoestroError } from '../../errors.js';
import { openGguf } from './gguf-source.js';
import { openHuggingFace } from './hugging-face.js';
import type { ModelSource } from './source.js';

/**
 * Opens a Hugging Face directory (by its config.json) or a .gguf file and checks all that can be checked without
 * reading weights. The caller closes the source.
 * Throws SOURCE_INVALID, UNSUPPORTED_ARCHITECTURE, UNSUPPORTED_TOKENIZER, UNSUPPORTED_DTYPE, IO_ERROR.
 */
export async function openSource(path: string): Promise<ModelSource> {
  const stat = statOf(path);
  if (stat?.isDirectory() && has(path, 'config.json')) return openHuggingFace(path);
  if (stat?.isFile() && path.toLowerCase().endsWith('.gguf')) return openGguf(path);
  const found = describeFound(path, stat);
  throw new MoestroError(
    'SOURCE_INVALID',
    `Cannot convert "${path}": found ${found}, needed a Hugging Face directory with config.json or a .gguf file`,
    { path },
  );
}

const has = (directory: string, name: string): boolean => statOf(join(directory, name)) !== undefined;

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw new MoestroError('IO_ERROR', `Cannot open "${path}": ${(error as Error).message}`, { path }, error);
  }
}

function describeFound(path: string, stat: Stats | undefined): string {
  if (stat === undefined) return 'nothing';
  if (!stat.isDirectory()) return 'a file of another kind';
  return has(path, 'manifest.json') ? 'a directory that is already converted' : 'a directory without config.json';
}
