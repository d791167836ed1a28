import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ReferenceSequence } from '../../src/eval/reference.js';
import { argmax } from '../../src/eval/reference-math.js';
import { ReferencePool } from '../../src/eval/reference-pool.js';
import { randomReference } from './random-reference.js';

const weights = randomReference({});
let pool: ReferencePool;
beforeAll(() => {
  pool = new ReferencePool(weights, 2);
});
afterAll(() => pool.close());

describe('ReferencePool', () => {
  it('logits() gives the rows that one thread gives', async () => {
    const sequences = [
      [1, 2, 3, 4],
      [5, 6, 7],
      [8, 9],
    ];
    const rows = await Promise.all(sequences.map((ids) => pool.logits(ids, 1)));
    for (const [index, ids] of sequences.entries()) {
      expect([...rows[index]!]).toEqual([...new ReferenceSequence(weights, ids.length).append(ids, 1)]);
    }
  });

  it('answer() goes on greedily and ends before a stop token', async () => {
    const prompt = [1, 2, 3];
    const expected: number[] = [];
    while (expected.length < 6) {
      const ids = [...prompt, ...expected];
      const logits = new ReferenceSequence(weights, ids.length).append(ids, ids.length - 1);
      expected.push(argmax(logits, 0, logits.length));
    }
    expect(await pool.answer(prompt, 6, [])).toEqual(expected);
    const stop = expected[3]!;
    expect(await pool.answer(prompt, 6, [stop])).toEqual(expected.slice(0, expected.indexOf(stop)));
  });

  it('logits() rejects with the error of the path when an id is outside the vocabulary', async () => {
    await expect(pool.logits([1, 400], 0)).rejects.toThrow('Cannot embed token 400: the vocabulary has 40');
  });
});
