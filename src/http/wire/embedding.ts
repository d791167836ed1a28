/** The body of /v1/embeddings: its schema, and what it means; and vectors as its clients read them. */
import { precisionAsked, type TextGenerator } from '../../generate.js';
import { check, invalid } from '../check.js';
import { type Prompt, readPrompts } from './prompts.js';
import { MOESTRO_FIELD } from './sampling.js';

export const EMBEDDING_SCHEMA = {
  type: 'object',
  properties: {
    model: { type: 'string' },
    // A string, strings, token ids, or lists of token ids: told apart in prompts.ts.
    input: {},
    encoding_format: { type: 'string', enum: ['float', 'base64'] },
    dimensions: { type: 'integer', minimum: 1 },
    /** Ours: which hidden states make the vector. */
    pooling: { type: 'string', enum: ['mean', 'last'] },
    moestro: MOESTRO_FIELD,
  },
} as const;

/** OpenAI's own limit. */
const INPUTS_MAX = 2048;

type EmbedOptions = Parameters<TextGenerator['embed']>[1];

export interface EmbeddingRequest {
  readonly inputs: readonly Prompt[];
  readonly options: EmbedOptions;
  readonly dimensions: number;
  readonly format: 'float' | 'base64';
}

/** @throws {MoestroError} INVALID_REQUEST with details.param. */
export function readEmbeddingRequest(json: unknown, { info }: Pick<TextGenerator, 'info'>): EmbeddingRequest {
  const body = check(EMBEDDING_SCHEMA, json);
  const inputs = readPrompts(body.input, 'input');
  if (inputs.length > INPUTS_MAX) throw invalid('input', `${inputs.length} texts`, `${INPUTS_MAX} at most`);
  const { dimensions = info.hiddenSize } = body;
  if (dimensions > info.hiddenSize) {
    throw invalid('dimensions', String(dimensions), `a whole number from 1 to ${info.hiddenSize}`);
  }
  return {
    inputs,
    // Models that were not trained to embed have no token that stands for the text; the mean is the better guess.
    options: { pooling: body.pooling ?? 'mean', ...precisionAsked(body.moestro?.mode, body.moestro?.bits) },
    dimensions,
    format: body.encoding_format ?? 'float',
  };
}

/** The first `dimensions` of a vector, scaled to unit length; a vector of zeros stays one. */
export function unitVector(vector: Float32Array, dimensions: number): Float32Array {
  const kept = vector.subarray(0, dimensions);
  const length = Math.hypot(...kept);
  return length > 0 ? kept.map((value) => value / length) : kept.slice();
}

/** Numbers, or base64 of little-endian float32, which is what the openai package asks for unless told otherwise. */
export function encodeVector(vector: Float32Array, format: 'float' | 'base64'): number[] | string {
  if (format === 'float') return [...vector];
  const bytes = Buffer.alloc(vector.length * 4);
  for (const [i, value] of vector.entries()) bytes.writeFloatLE(value, i * 4);
  return bytes.toString('base64');
}
