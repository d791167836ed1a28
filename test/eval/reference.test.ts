import { describe, expect, it } from 'vitest';
import { ReferenceSequence } from '../../src/eval/reference.js';
import { matmul, topK } from '../../src/eval/reference-math.js';
import { randomReference } from './random-reference.js';

describe('matmul()', () => {
  it.each([
    [1, 1, 1],
    [4, 3, 2],
    [7, 5, 3],
    [9, 32, 5],
  ])('matmul() equals the plain sum for %i rows, %i columns, %i tokens', (rows, cols, tokens) => {
    const w = Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i + 1));
    const x = Float32Array.from({ length: tokens * cols }, (_, i) => Math.cos(3 * i));
    const y = new Float32Array(tokens * rows);
    matmul(w, rows, cols, x, tokens, y);
    for (let t = 0; t < tokens; ++t) {
      for (let r = 0; r < rows; ++r) {
        let sum = 0;
        for (let c = 0; c < cols; ++c) sum += w[r * cols + c]! * x[t * cols + c]!;
        expect(y[t * rows + r]).toBe(Math.fround(sum));
      }
    }
  });
});

describe('topK()', () => {
  it('topK() orders by score and breaks ties by the lower index', () => {
    expect(topK(Float64Array.of(0.1, 0.3, 0.3, 0.2), 3)).toEqual([1, 2, 3]);
  });
});

describe('ReferenceSequence', () => {
  const ids = [3, 14, 15, 9, 26, 5, 35, 8];

  it('append() gives the same logits when tokens come one by one as all together', () => {
    for (const change of [{}, { qkNorm: 'full' as const }, { attentionBias: true }, { slidingWindow: 3 }]) {
      const weights = randomReference({ ...change, sharedExpertSize: 32, sharedExpertGate: true });
      const together = new ReferenceSequence(weights, ids.length).append(ids);
      const sequence = new ReferenceSequence(weights, ids.length);
      const single = ids.flatMap((id) => [...sequence.append([id])]);
      expect(single).toEqual([...together]);
    }
  });

  it('append() sees only the window when attention slides', () => {
    // One layer, so that what is out of the window cannot come back through another.
    const weights = randomReference({ layerCount: 1, layerKinds: ['moe'], slidingWindow: 2 });
    const last = (tokens: number[]) => [...new ReferenceSequence(weights, 8).append(tokens, tokens.length - 1)];
    expect(last([1, 2, 3, 4])).toEqual(last([9, 9, 3, 4]));
    expect(last([1, 2, 3, 4])).not.toEqual(last([1, 2, 5, 4]));
  });

  it('append() changes with each part of the model, so that none is left out', () => {
    const logits = (change: Parameters<typeof randomReference>[0]) =>
      [...new ReferenceSequence(randomReference(change), 8).append(ids, ids.length - 1)].map((value) =>
        value.toFixed(4),
      );
    const plain = logits({});
    for (const change of [
      { qkNorm: 'none' as const },
      { qkNorm: 'full' as const },
      { attentionBias: true },
      { sharedExpertSize: 32 },
      { normTopK: false },
      { topK: 1 },
      { tiedEmbeddings: false },
      { ropeTheta: 500 },
      { rmsNormEps: 0.1 },
      { layerKinds: ['dense', 'moe'] as const, denseFfnSize: 32 },
    ]) {
      expect(logits(change), JSON.stringify(change)).not.toEqual(plain);
    }
    expect(logits({ sharedExpertSize: 32, sharedExpertGate: true })).not.toEqual(logits({ sharedExpertSize: 32 }));
  });

  it('append() refuses what does not fit', () => {
    const weights = randomReference({});
    expect(() => new ReferenceSequence(weights, 2).append([1, 2, 3])).toThrow(
      'Cannot evaluate 3 tokens: the sequence has room for 2',
    );
    expect(() => new ReferenceSequence(weights, 2).append([40])).toThrow(
      'Cannot embed token 40: the vocabulary has 40',
    );
  });
});
