/** Texts as /v1/completions and /v1/embeddings take them: a string, strings, token ids, or lists of token ids. */
import type { TextGenerator } from '../../generate.js';
import { invalid, shown } from '../check.js';

export type Prompt = string | readonly number[];

const PROMPT_FORMS = 'a string, a list of strings, a list of token ids, or a list of lists of token ids';

/** @throws {MoestroError} INVALID_REQUEST naming the field. */
export function readPrompts(value: unknown, path: string): readonly Prompt[] {
  if (typeof value === 'string') return [value];
  if (Array.isArray(value) && value.length > 0) {
    const items: readonly unknown[] = value;
    if (items.every((item) => typeof item === 'string')) return items;
    if (isIds(items)) return [items];
    if (items.every(isIds)) return items;
  }
  throw invalid(path, shown(value), PROMPT_FORMS);
}

/** @throws {MoestroError} CONTEXT_LENGTH_EXCEEDED, INVALID_REQUEST. */
export const promptIds = (
  prompt: Prompt,
  generator: TextGenerator,
  path: 'prompt' | 'input' = 'prompt',
): readonly number[] =>
  typeof prompt === 'string' ? generator.prompts.fromText(prompt, path) : generator.prompts.fromIds(prompt, path);

const isIds = (value: unknown): value is readonly number[] =>
  Array.isArray(value) && value.length > 0 && value.every((item) => Number.isInteger(item));
