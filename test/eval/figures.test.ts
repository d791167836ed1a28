import { describe, expect, it } from 'vitest';
import { DivergenceMeter, klDivergence } from '../../src/eval/divergence.js';
import { chunkTokens, PerplexityMeter, scoredRows } from '../../src/eval/perplexity.js';

describe('klDivergence()', () => {
  it('klDivergence() of known distributions is the sum of p ln(p / q)', () => {
    const p = [0.5, 0.25, 0.25];
    const q = [0.25, 0.25, 0.5];
    // Any constant may be added to a row of logits.
    const logits = (shares: number[], shift: number) => Float32Array.from(shares, (share) => Math.log(share) + shift);
    expect(klDivergence(logits(p, 3), logits(q, -5))).toBeCloseTo(0.25 * Math.log(2), 6);
    expect(klDivergence(logits(p, 0), logits(p, 7))).toBeCloseTo(0, 6);
  });

  it('klDivergence() counts nothing for tokens that the reference rules out', () => {
    const reference = Float32Array.of(0, Number.NEGATIVE_INFINITY);
    expect(klDivergence(reference, Float32Array.of(0, 0))).toBeCloseTo(Math.log(2), 12);
  });
});

describe('DivergenceMeter', () => {
  it('result() is the mean KL and the percent of equal first tokens', () => {
    const meter = new DivergenceMeter();
    expect(meter.result()).toBeUndefined();
    meter.add(Float32Array.of(1, 0), Float32Array.of(1, 0));
    meter.add(Float32Array.of(1, 0), Float32Array.of(0, 1));
    const e = Math.E / (1 + Math.E);
    const kl = (e * Math.log(e / (1 - e)) + (1 - e) * Math.log((1 - e) / e)) / 2;
    expect(meter.result()!.kl).toBeCloseTo(kl, 12);
    expect(meter.result()).toMatchObject({ top1: 50, positions: 2 });
  });
});

describe('perplexity', () => {
  it('chunkTokens() cuts whole chunks, leaves the rest out and puts BOS in place of each first token', () => {
    const ids = [1, 2, 3, 4, 5, 6, 7];
    expect(chunkTokens(ids, 3, null, null)).toEqual([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect(chunkTokens(ids, 3, 1, 0)).toEqual([[0, 2, 3]]);
    expect(() => chunkTokens(ids, 8, null, null)).toThrow('the text has 7 tokens, needed at least one chunk of 8');
  });

  it('PerplexityMeter scores the second half of a chunk, each position by its next token', () => {
    const vocab = 4;
    const ids = [0, 1, 2, 3, 0, 1, 2, 3];
    const { begin, end } = scoredRows(ids.length);
    expect([begin, end]).toEqual([4, 7]);
    // Row i gives its next token probability 1/2 and the others 1/6.
    const logits = new Float32Array((end - begin) * vocab).fill(Math.log(1 / 6));
    for (let row = 0; row < end - begin; ++row) logits[row * vocab + ids[begin + row + 1]!] = Math.log(1 / 2);
    const meter = new PerplexityMeter();
    meter.add(ids, begin, logits, vocab);
    expect(meter.positions).toBe(3);
    expect(meter.result()).toBeCloseTo(2, 6);
  });
});
