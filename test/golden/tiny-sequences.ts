/** The token sequences that golden files of the tiny random models hold. */
import { randomWords } from '../../src/model/synthetic/random-pool.js';

/** The seed of `makeTinyModel` for golden files. */
export const TINY_SEED = 1;

/** Sixteen sequences of 128 random tokens: 2,048 positions. */
export function tinySequences(vocabSize: number): number[][] {
  const next = randomWords(11);
  return Array.from({ length: 16 }, () => Array.from({ length: 128 }, () => next() % vocabSize));
}
