/**
 * Perplexity of a text, counted as llama.cpp's perplexity tool counts it, so that figures can be set side by side: the
 * tokens of the whole text are cut into chunks of `context`, each chunk is a sequence of its own, and only its second half
 * is scored (positions context / 2 to context - 2, each predicting the next token), so that every scored token has at
 * least half a context before it. A rest shorter than a chunk is left out. Where a model begins every sequence with
 * a BOS token, it takes the place of each chunk's first token.
 */
import { MoestroError } from '../errors.js';
import { logSumExp, rowOf } from './distribution.js';

/**
 * Whole chunks of token ids, `limit` of them at most (all when null).
 *
 * @param bos id that replaces the first token of each chunk, or null.
 * @throws {MoestroError} INVALID_REQUEST when the text does not fill one chunk.
 */
export function chunkTokens(
  ids: readonly number[],
  context: number,
  limit: number | null,
  bos: number | null,
): number[][] {
  const count = Math.min(Math.floor(ids.length / context), limit ?? Number.POSITIVE_INFINITY);
  if (count < 1) {
    throw new MoestroError(
      'INVALID_REQUEST',
      `Cannot measure perplexity: the text has ${ids.length} tokens, needed at least one chunk of ${context}`,
      { tokens: ids.length, context },
    );
  }
  return Array.from({ length: count }, (_, index) => {
    const chunk = ids.slice(index * context, (index + 1) * context);
    if (bos !== null) chunk[0] = bos;
    return chunk;
  });
}

/** The rows of a chunk that are scored: logits after positions [begin, end). */
export function scoredRows(context: number): { readonly begin: number; readonly end: number } {
  return { begin: Math.floor(context / 2), end: context - 1 };
}

/** Adds scored chunks up. */
export class PerplexityMeter {
  #nll = 0;
  #positions = 0;

  /** `logits` Float32Array [rows, vocabSize], row i standing after position `begin` + i of `ids`. */
  add(ids: readonly number[], begin: number, logits: Float32Array, vocabSize: number): void {
    const rows = logits.length / vocabSize;
    for (let row = 0; row < rows; ++row) {
      const next = ids[begin + row + 1];
      if (next === undefined) break;
      const own = rowOf(logits, row, vocabSize);
      this.#nll += logSumExp(own) - own[next]!;
      ++this.#positions;
    }
  }

  get positions(): number {
    return this.#positions;
  }

  /** Undefined before the first position. */
  result(): number | undefined {
    return this.#positions === 0 ? undefined : Math.exp(this.#nll / this.#positions);
  }
}
