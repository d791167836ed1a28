/** The body of /v1/completions: its schema, and what it means. */
import type { XStatic } from 'typebox/schema';
import type { AnswerOptions } from '../../answer/types.js';
import { check, invalid } from '../check.js';
import { type Prompt, readPrompts } from './prompts.js';
import { answerOptions, choiceCount, type ModelLimits, SAMPLING_FIELDS } from './sampling.js';

export const COMPLETION_SCHEMA = {
  type: 'object',
  properties: {
    ...SAMPLING_FIELDS,
    model: { type: 'string' },
    // A string, strings, token ids, or lists of token ids: told apart in prompts.ts.
    prompt: {},
    echo: { type: 'boolean' },
    suffix: { type: 'string' },
    best_of: { type: 'integer', minimum: 1 },
    logprobs: { type: 'integer', minimum: 0, maximum: 20 },
  },
} as const;

type CompletionBody = XStatic<typeof COMPLETION_SCHEMA>;

export interface CompletionRequest {
  readonly prompts: readonly Prompt[];
  readonly options: AnswerOptions;
  /** What follows each answer; null for nothing. */
  readonly suffix: string | null;
  /** Answers to each prompt, and how many are drawn to choose them from. */
  readonly choices: number;
  readonly drawn: number;
  readonly echo: boolean;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly reportProgress: boolean;
}

/** What OpenAI's completions have always done: a text model does not end by itself. */
const MAX_TOKENS_DEFAULT = 16;

/** @throws {MoestroError} INVALID_REQUEST, UNSUPPORTED_PARAMETER, each with details.param. */
export function readCompletionRequest(json: unknown, limits: ModelLimits): CompletionRequest {
  const body = check(COMPLETION_SCHEMA, json);
  const prompts = readPrompts(body.prompt, 'prompt');
  refuseContradictions(body, prompts);
  const choices = choiceCount(body.n, limits);
  const drawn = body.best_of === undefined ? choices : choiceCount(body.best_of, limits, 'best_of');
  if (prompts.length * drawn > limits.capacity) {
    throw invalid('prompt', `${prompts.length} prompts with ${drawn} choices each`, `${limits.capacity} at most`);
  }
  const maxTokens = body.max_tokens ?? body.n_predict ?? MAX_TOKENS_DEFAULT;
  return {
    prompts,
    options: answerOptions(body, body.logprobs ?? null, limits, maxTokens),
    suffix: body.suffix === undefined || body.suffix === '' ? null : body.suffix,
    choices,
    drawn,
    echo: body.echo === true,
    stream: body.stream === true,
    includeUsage: body.stream_options?.include_usage === true,
    reportProgress: body.return_progress === true,
  };
}

function refuseContradictions(body: CompletionBody, prompts: readonly Prompt[]): void {
  const { best_of: drawn, n = 1 } = body;
  if (drawn !== undefined && drawn < n) throw invalid('best_of', String(drawn), `"n", which is ${n}, or more`);
  if (drawn !== undefined && drawn > n && body.stream === true) {
    throw invalid('best_of', `${drawn} in a stream`, '"stream" to be false: the best is known when all have ended');
  }
  if (body.suffix === undefined || body.suffix === '') return;
  if (body.echo === true) throw invalid('echo', 'true beside "suffix"', 'it to be false');
  const ids = prompts.findIndex((prompt) => typeof prompt !== 'string');
  if (ids >= 0) throw invalid('prompt', 'token ids beside "suffix"', 'a string or a list of strings');
}
