/** Rows of logits as log-probabilities, in double: what perplexity and divergence are made of. */

/** ln(sum exp(row)) with the maximum taken out; row may be logits or log-probabilities of any offset. */
export function logSumExp(row: Float32Array): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < row.length; ++i) if (row[i]! > max) max = row[i]!;
  let sum = 0;
  for (let i = 0; i < row.length; ++i) sum += Math.exp(row[i]! - max);
  return max + Math.log(sum);
}

/** Row `index` of a matrix of logits [rows, vocabSize]: a view. */
export function rowOf(logits: Float32Array, index: number, vocabSize: number): Float32Array {
  return logits.subarray(index * vocabSize, (index + 1) * vocabSize);
}
