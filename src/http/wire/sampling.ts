/** The fields of a request that say how tokens are drawn: OpenAI's, and llama.cpp's plain names for what it lacks. */

import type { XStatic } from 'typebox/schema';
import type { AnswerOptions, Format } from '../../answer/types.js';
import { MoestroError } from '../../errors.js';
import { precisionAsked, type TextGenerator } from '../../generate.js';
import { invalid, shown } from '../check.js';

const STOP_COUNT_MAX = 64;
/** Answers to one request at most; the server's own capacity may be less. */
export const CHOICES_MAX = 16;

/** Our own account of a request: `"moestro": {"mode": "routed", "bits": 3}`. */
export const MOESTRO_FIELD = {
  type: 'object',
  properties: {
    mode: { type: 'string', enum: ['exact', 'routed', 'elastic'] },
    bits: { type: 'number', minimum: 2, maximum: 8 },
  },
} as const;

/**
 * Samplers of llama.cpp that are not here, and the value with which each does nothing: that one is taken, since clients
 * send whole forms; any other would change the answer and is refused. Their further settings do nothing without them.
 */
const ABSENT_SAMPLERS: Readonly<Record<string, number>> = {
  typical_p: 1,
  mirostat: 0,
  dynatemp_range: 0,
  xtc_probability: 0,
  dry_multiplier: 0,
  top_n_sigma: -1,
  n_probs: 0,
};

export const SAMPLING_FIELDS = {
  stream: { type: 'boolean' },
  stream_options: { type: 'object', properties: { include_usage: { type: 'boolean' } } },
  // -1 is llama.cpp's word for no limit.
  max_tokens: { type: 'integer', minimum: -1 },
  n_predict: { type: 'integer', minimum: -1 },
  n: { type: 'integer', minimum: 1 },
  stop: {
    anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'string' }, maxItems: STOP_COUNT_MAX }],
  },
  // vLLM's.
  stop_token_ids: { type: 'array', items: { type: 'integer' }, maxItems: STOP_COUNT_MAX },
  min_tokens: { type: 'integer', minimum: 0 },
  seed: { type: 'integer' },
  temperature: { type: 'number', minimum: 0, maximum: 2 },
  top_p: { type: 'number', minimum: 0, maximum: 1 },
  top_k: { type: 'integer', minimum: -1 },
  min_p: { type: 'number', minimum: 0, maximum: 1 },
  presence_penalty: { type: 'number', minimum: -2, maximum: 2 },
  frequency_penalty: { type: 'number', minimum: -2, maximum: 2 },
  repeat_penalty: { type: 'number', minimum: 0.01, maximum: 10 },
  repetition_penalty: { type: 'number', minimum: 0.01, maximum: 10 },
  repeat_last_n: { type: 'integer', minimum: -1 },
  logit_bias: { type: 'object', additionalProperties: { type: 'number', minimum: -100, maximum: 100 } },
  // llama.cpp's names, and vLLM's.
  grammar: { type: 'string' },
  json_schema: {},
  guided_grammar: { type: 'string' },
  guided_json: {},
  guided_regex: { type: 'string' },
  guided_choice: { type: 'array', items: { type: 'string' }, minItems: 1 },
  typical_p: { type: 'number' },
  mirostat: { type: 'number' },
  dynatemp_range: { type: 'number' },
  xtc_probability: { type: 'number' },
  dry_multiplier: { type: 'number' },
  top_n_sigma: { type: 'number' },
  n_probs: { type: 'number' },
  ignore_eos: { type: 'boolean' },
  t_max_predict_ms: { type: 'integer', minimum: -1 },
  return_progress: { type: 'boolean' },
  service_tier: { type: 'string' },
  // llama.cpp's: false neither takes known prefixes nor leaves any.
  cache_prompt: { type: 'boolean' },
  moestro: MOESTRO_FIELD,
} as const;

const SAMPLING_SCHEMA = { type: 'object', properties: SAMPLING_FIELDS } as const;
export type SamplingBody = XStatic<typeof SAMPLING_SCHEMA>;

/** "priority" goes before all others, "flex" after them; other tiers are as none. */
function priorityOf(tier: string | undefined): { readonly priority?: 'high' | 'low' } {
  if (tier === 'priority') return { priority: 'high' };
  return tier === 'flex' ? { priority: 'low' } : {};
}

/** What the body is checked against and completed with. */
export interface ModelLimits {
  readonly info: Pick<TextGenerator['info'], 'vocabSize' | 'contextLength'>;
  readonly capacity: number;
  readonly defaults: TextGenerator['defaults'];
}

/** A parameter that is not there yet, or never will be. */
export function unsupported(path: string, needed: string): MoestroError {
  return new MoestroError('UNSUPPORTED_PARAMETER', `Cannot use "${path}": not supported, needed ${needed}`, {
    param: path,
  });
}

/**
 * Fields to options of the first choice; choice k draws with seed + k.
 *
 * @param maxTokens what the route says of its own fields; undefined falls to max_tokens.
 * @param topLogprobs alternatives to report per token; null for no logprobs.
 * @param needsForm the answer is read by a program: it runs at the full level unless the request says otherwise.
 */
export function answerOptions(
  body: SamplingBody,
  topLogprobs: number | null,
  { info, defaults }: ModelLimits,
  maxTokens: number | undefined = body.max_tokens ?? body.n_predict,
  needsForm = false,
): AnswerOptions {
  const format = plainFormat(body);
  for (const [path, neutral] of Object.entries(ABSENT_SAMPLERS)) {
    const value = body[path as keyof SamplingBody];
    if (value !== undefined && value !== neutral) throw unsupported(path, `${neutral}, with which it does nothing`);
  }
  const topK = body.top_k ?? defaults.topK;
  const { mode, bits } = body.moestro ?? {};
  const window = body.repeat_last_n ?? defaults.penaltyWindow;
  return {
    maxTokens: maxTokens === undefined || maxTokens < 0 ? null : maxTokens,
    // An empty stop text would end every answer before it began; clients send it for "none".
    stop: [body.stop ?? []].flat().filter((text) => text !== ''),
    ...(body.stop_token_ids === undefined ? {} : { stopTokenIds: stopTokenIds(body.stop_token_ids, info.vocabSize) }),
    ...(body.min_tokens === undefined ? {} : { minTokens: minTokens(body.min_tokens, maxTokens) }),
    sampling: {
      temperature: body.temperature ?? defaults.temperature,
      topP: body.top_p ?? defaults.topP,
      topK: Math.max(0, topK),
      minP: body.min_p ?? defaults.minP,
      repetitionPenalty: body.repeat_penalty ?? body.repetition_penalty ?? defaults.repetitionPenalty,
      presencePenalty: body.presence_penalty ?? defaults.presencePenalty,
      frequencyPenalty: body.frequency_penalty ?? defaults.frequencyPenalty,
      penaltyWindow: window < 0 ? info.contextLength : Math.min(window, info.contextLength),
      logitBias: logitBias(body.logit_bias ?? {}, info.vocabSize),
      seed: body.seed === undefined || body.seed === -1 ? null : unsigned(body.seed),
      topLogprobs,
    },
    ...(format === undefined ? {} : { format }),
    ...(body.ignore_eos === true ? { ignoreEos: true } : {}),
    // Neither 0 nor -1 is a limit for llama.cpp.
    ...((body.t_max_predict_ms ?? 0) > 0 ? { predictMs: body.t_max_predict_ms! } : {}),
    ...priorityOf(body.service_tier),
    ...(body.cache_prompt === false ? { usesPrefixes: false } : {}),
    ...precisionAsked(mode ?? ((needsForm || format !== undefined) && bits === undefined ? 'exact' : undefined), bits),
  };
}

/** The format that one of the plain names asks for. @throws {MoestroError} INVALID_REQUEST for two of them. */
function plainFormat(body: SamplingBody): Format | undefined {
  const formats: Format[] = [];
  for (const param of ['grammar', 'guided_grammar'] as const) {
    const source = body[param];
    // Clients that have no grammar send an empty one.
    if (source !== undefined && source !== '') formats.push({ kind: 'grammar', source, param });
  }
  for (const param of ['json_schema', 'guided_json'] as const) {
    const schema = body[param];
    if (schema !== undefined && schema !== '')
      formats.push({ kind: 'json_schema', schema: schemaOf(schema, param), param });
  }
  if (body.guided_regex !== undefined) {
    formats.push({ kind: 'regex', pattern: body.guided_regex, param: 'guided_regex' });
  }
  if (body.guided_choice !== undefined) {
    formats.push({ kind: 'choice', texts: body.guided_choice, param: 'guided_choice' });
  }
  if (formats.length > 1) throw invalid(formats[1]!.param, `it beside "${formats[0]!.param}"`, 'one of them');
  return formats[0];
}

/** vLLM's clients send the schema as an object or as its text. */
function schemaOf(value: unknown, param: string): unknown {
  if (typeof value !== 'string') return value;
  try {
    return JSON.parse(value);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw invalid(param, shown(value), 'a JSON Schema');
  }
}

/** How many answers are wanted. */
export function choiceCount(n: number | undefined, limits: ModelLimits, path = 'n'): number {
  const most = Math.min(CHOICES_MAX, limits.capacity);
  if (n !== undefined && n > most) throw invalid(path, String(n), `a whole number from 1 to ${most}`);
  return n ?? 1;
}

/** The same request once more: another seed when one was given, or all choices would be equal. */
export function optionsOfChoice(options: AnswerOptions, choice: number): AnswerOptions {
  const { seed } = options.sampling;
  return seed === null || choice === 0
    ? options
    : { ...options, sampling: { ...options.sampling, seed: seed + choice } };
}

/** Seeds may be negative on the wire; the sampler takes 0 to 2^52. */
const unsigned = (seed: number): number => Number(BigInt.asUintN(52, BigInt(seed)));

function stopTokenIds(ids: readonly number[], vocabSize: number): readonly number[] {
  const outside = ids.findIndex((id) => id < 0 || id >= vocabSize);
  if (outside < 0) return ids;
  throw invalid(`stop_token_ids[${outside}]`, String(ids[outside]), `a token id from 0 to ${vocabSize - 1}`);
}

function minTokens(least: number, most: number | undefined): number {
  if (most === undefined || most < 0 || least <= most) return least;
  throw invalid('min_tokens', String(least), `no more than the ${most} tokens that the answer may have`);
}

function logitBias(bias: Readonly<Record<string, number>>, vocabSize: number): (readonly [number, number])[] {
  return Object.entries(bias).map(([key, value]) => {
    const id = /^\d+$/.test(key) ? Number(key) : Number.NaN;
    if (!(id < vocabSize)) throw invalid(`logit_bias.${key}`, shown(key), `token ids from 0 to ${vocabSize - 1}`);
    return [id, value] as const;
  });
}
