/** The body of /v1/completions: its schema, and what it means. */
import type { XStatic } from 'typebox/schema';
import type { AnswerOptions } from '../../generate.js';
import { check, invalid, shown } from '../check.js';
import { answerOptions, choiceCount, type ModelLimits, SAMPLING_FIELDS, unsupported } from './sampling.js';

export const COMPLETION_SCHEMA = {
  type: 'object',
  properties: {
    ...SAMPLING_FIELDS,
    model: { type: 'string' },
    // A string, strings, token ids, or lists of token ids: told apart below.
    prompt: {},
    echo: { type: 'boolean' },
    suffix: { type: 'string' },
    best_of: { type: 'integer', minimum: 1 },
    logprobs: { type: 'integer', minimum: 0, maximum: 20 },
  },
} as const;

type CompletionBody = XStatic<typeof COMPLETION_SCHEMA>;
export type Prompt = string | readonly number[];

export interface CompletionRequest {
  readonly prompts: readonly Prompt[];
  readonly options: AnswerOptions;
  /** Answers to each prompt. */
  readonly choices: number;
  readonly echo: boolean;
  readonly stream: boolean;
  readonly includeUsage: boolean;
}

/** What OpenAI's completions have always done: a text model does not end by itself. */
const MAX_TOKENS_DEFAULT = 16;

/** @throws {MoestroError} INVALID_REQUEST, UNSUPPORTED_PARAMETER, each with details.param. */
export function readCompletionRequest(json: unknown, limits: ModelLimits): CompletionRequest {
  const body = check(COMPLETION_SCHEMA, json);
  refuseUnsupported(body);
  const prompts = readPrompts(body.prompt);
  const choices = choiceCount(body.n, limits);
  if (prompts.length * choices > limits.capacity) {
    throw invalid('prompt', `${prompts.length} prompts with ${choices} choices each`, `${limits.capacity} at most`);
  }
  const maxTokens = body.max_tokens ?? body.n_predict ?? MAX_TOKENS_DEFAULT;
  return {
    prompts,
    options: answerOptions(body, body.logprobs ?? null, limits, maxTokens),
    choices,
    echo: body.echo === true,
    stream: body.stream === true,
    includeUsage: body.stream_options?.include_usage === true,
  };
}

function refuseUnsupported(body: CompletionBody): void {
  if (body.suffix !== undefined && body.suffix !== '') throw unsupported('suffix', 'it to be absent');
  if (body.best_of !== undefined && body.best_of > (body.n ?? 1)) throw unsupported('best_of', 'at most "n"');
  if (body.echo === true && body.logprobs !== undefined) throw unsupported('echo', '"logprobs" to be absent beside it');
}

const PROMPT_FORMS = 'a string, a list of strings, a list of token ids, or a list of lists of token ids';

function readPrompts(prompt: unknown): readonly Prompt[] {
  if (typeof prompt === 'string') return [prompt];
  if (Array.isArray(prompt) && prompt.length > 0) {
    const items: readonly unknown[] = prompt;
    if (items.every((item) => typeof item === 'string')) return items;
    if (isIds(items)) return [items];
    if (items.every(isIds)) return items;
  }
  throw invalid('prompt', shown(prompt), PROMPT_FORMS);
}

const isIds = (value: unknown): value is readonly number[] =>
  Array.isArray(value) && value.length > 0 && value.every((item) => Number.isInteger(item));
