/** One thread of the reference path: started by reference-pool.ts with the weights, which it shares, as its data. */
import { move, workerData } from 'piscina';
import { ReferenceSequence } from './reference.js';
import { argmax } from './reference-math.js';
import type { ReferenceWeights } from './reference-weights.js';

const weights = workerData as ReferenceWeights;

/** Logits after each token from the `begin`-th on: Float32Array [ids.length - begin, vocabSize]. */
export function logits(request: { readonly ids: readonly number[]; readonly begin: number }): unknown {
  const rows = new ReferenceSequence(weights, request.ids.length).append(request.ids, request.begin);
  return move(rows.buffer as ArrayBuffer);
}

/** Greedy answer until a stop token, which is left out, or `maxTokens`. */
export function answer(request: {
  readonly promptIds: readonly number[];
  readonly maxTokens: number;
  readonly stopTokenIds: readonly number[];
}): number[] {
  const { promptIds, maxTokens, stopTokenIds } = request;
  const sequence = new ReferenceSequence(weights, promptIds.length + maxTokens);
  const chosen: number[] = [];
  let rows = sequence.append(promptIds, promptIds.length - 1);
  while (chosen.length < maxTokens) {
    const next = argmax(rows, 0, rows.length);
    if (stopTokenIds.includes(next)) break;
    chosen.push(next);
    rows = sequence.append([next]);
  }
  return chosen;
}
