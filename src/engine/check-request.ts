/** Can the engine run these tokens? What comes from other threads is checked here, once. */
import { formatBytes } from '../bytes.js';
import { MoestroError } from '../errors.js';
import { EVALUATION_BYTES_MAX, type GenerateRequest, type Sampling } from './types.js';

interface Limits {
  readonly vocabSize: number;
  readonly contextLength: number;
}

/**
 * @param most tokens at most: the context, less what the answer needs of it.
 * @throws {MoestroError} INVALID_REQUEST, CONTEXT_LENGTH_EXCEEDED.
 */
export function checkTokens(tokenIds: readonly number[], most: number, { vocabSize, contextLength }: Limits): void {
  if (tokenIds.length === 0) {
    throw new MoestroError('INVALID_REQUEST', 'Cannot run a prompt: got 0 tokens, needed at least 1');
  }
  if (tokenIds.length > most) {
    throw new MoestroError(
      'CONTEXT_LENGTH_EXCEEDED',
      `Cannot run a prompt of ${tokenIds.length} tokens: the context holds ${contextLength}, answer included`,
      { promptTokens: tokenIds.length, contextLength },
    );
  }
  const foreign = tokenIds.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (foreign !== undefined) {
    throw new MoestroError(
      'INVALID_REQUEST',
      `Cannot run a prompt with token ${foreign}: the vocabulary has tokens 0 to ${vocabSize - 1}`,
    );
  }
}

/** Logits of `length` tokens from index `from` on. @throws {MoestroError} INVALID_REQUEST. */
export function checkEvaluated(from: number, length: number, { vocabSize }: Limits): void {
  if (!Number.isInteger(from) || from < 0 || from >= length) {
    throw new MoestroError('INVALID_REQUEST', `Cannot evaluate ${length} tokens from index ${from} on`);
  }
  const bytes = (length - from) * vocabSize * 4;
  if (bytes > EVALUATION_BYTES_MAX) {
    throw new MoestroError(
      'INVALID_REQUEST',
      `Cannot evaluate ${length - from} positions at once: their logits take ${formatBytes(bytes)}, needed at most ` +
        `${formatBytes(EVALUATION_BYTES_MAX)}`,
      { positions: length - from, bytes, most: EVALUATION_BYTES_MAX },
    );
  }
}

/** What the sampler can draw with. HTTP is stricter; programs that use the library may pass anything. */
const SAMPLING_RANGES: readonly (readonly [name: keyof Sampling, least: number, most: number])[] = [
  ['temperature', 0, Number.MAX_VALUE],
  ['topK', 0, Number.MAX_VALUE],
  ['topP', 0, 1],
  ['minP', 0, 1],
  ['repetitionPenalty', Number.MIN_VALUE, Number.MAX_VALUE],
  ['presencePenalty', -Number.MAX_VALUE, Number.MAX_VALUE],
  ['frequencyPenalty', -Number.MAX_VALUE, Number.MAX_VALUE],
  ['penaltyWindow', 0, Number.MAX_VALUE],
];

/** @throws {MoestroError} INVALID_REQUEST naming the first number that is out of its range. */
export function checkDrawing({
  sampling,
  maxTokens,
  minTokens = 0,
  promptLogprobs = 0,
}: Pick<GenerateRequest, 'sampling' | 'maxTokens' | 'minTokens' | 'promptLogprobs'>): void {
  inRange('promptLogprobs', promptLogprobs, 0, 20);
  for (const [name, least, most] of SAMPLING_RANGES) inRange(name, sampling[name], least, most);
  if (sampling.seed !== null) inRange('seed', sampling.seed, -Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  if (sampling.topLogprobs !== null) inRange('topLogprobs', sampling.topLogprobs, 0, 20);
  for (const [, bias] of sampling.logitBias) inRange('logitBias', bias, -Number.MAX_VALUE, Number.MAX_VALUE);
  inRange('minTokens', minTokens, 0, Number.MAX_VALUE);
  if (maxTokens !== null) inRange('maxTokens', maxTokens, 0, Number.MAX_VALUE);
}

function inRange(name: string, value: unknown, least: number, most: number): void {
  if (typeof value === 'number' && value >= least && value <= most) return;
  throw new MoestroError(
    'INVALID_REQUEST',
    `Cannot draw tokens with ${name} ${String(value)}: needed a number from ${least} to ${most}`,
    { name },
  );
}
