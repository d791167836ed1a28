import { describe, expect, it } from 'vitest';
import { Random } from '../../src/engine/random.js';
import { Sampler, SamplerScratch } from '../../src/engine/sampler.js';
import { GREEDY, type Sampling } from '../../src/engine/types.js';

/** Counts over many draws from the same logits, and the sampler's own stream. */
function draws(logits: readonly number[], sampling: Partial<Sampling>, count: number, seed = 17): number[] {
  const sampler = new Sampler({ ...GREEDY, temperature: 1, ...sampling, seed }, 0, new SamplerScratch(logits.length));
  const counts = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < count; ++i) {
    const { tokenId } = sampler.sample(Float32Array.from(logits), []);
    counts[tokenId] = counts[tokenId]! + 1;
  }
  return counts;
}

/** Pearson's statistic of counts against probabilities; those of probability 0 must not have been drawn. */
function chiSquare(counts: readonly number[], probabilities: readonly number[]): number {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let sum = 0;
  for (const [i, probability] of probabilities.entries()) {
    if (probability === 0) expect(counts[i]).toBe(0);
    else sum += (counts[i]! - total * probability) ** 2 / (total * probability);
  }
  return sum;
}

const softmax = (logits: readonly number[], temperature: number): number[] => {
  const weights = logits.map((logit) => Math.exp(logit / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
};

const renormalised = (probabilities: readonly number[], kept: readonly number[]): number[] => {
  const total = kept.reduce((sum, id) => sum + probabilities[id]!, 0);
  return probabilities.map((probability, id) => (kept.includes(id) ? probability / total : 0));
};

const LOGITS = [1.2, -0.3, 2.0, 0.1, 1.9, -1.5, 0.8, 0.1];
const sampleOnce = (logits: readonly number[], sampling: Partial<Sampling>, tokens: readonly number[] = []) =>
  new Sampler({ ...GREEDY, ...sampling }, 0, new SamplerScratch(logits.length)).sample(
    Float32Array.from(logits),
    tokens,
  );

describe('Sampler.sample()', () => {
  it('takes the highest logit and the lower id among equals when greedy', () => {
    expect(sampleOnce([0, 3, 1, 3], {}).tokenId).toBe(1);
    expect(sampleOnce([Number.NaN, -5, -4], {}).tokenId).toBe(2);
  });

  it('draws every one of the best and nobody else when many of 3,000 tokens are equal', () => {
    const logits = Array.from({ length: 3000 }, (_, id) => (id * 7919) % 500);
    const byQuality = logits.map((_, id) => id).sort((a, b) => logits[b]! - logits[a]! || a - b);
    const drawn = new Set<number>();
    for (let seed = 0; seed < 400; ++seed) {
      drawn.add(sampleOnce(logits, { temperature: 100, topK: 20, seed }).tokenId);
    }
    expect([...drawn].sort((a, b) => a - b)).toEqual(byQuality.slice(0, 20).sort((a, b) => a - b));
  });

  // 99.9 % quantiles of chi-square: 24.3 with 7 degrees of freedom, 16.3 with 3, 18.5 with 4, 13.8 with 2.
  it.each([
    { name: 'temperature 1', sampling: {}, wanted: softmax(LOGITS, 1), limit: 24.3 },
    { name: 'temperature 0.5', sampling: { temperature: 0.5 }, wanted: softmax(LOGITS, 0.5), limit: 24.3 },
    {
      name: 'top-k 4',
      sampling: { topK: 4 },
      wanted: renormalised(softmax(LOGITS, 1), [2, 4, 0, 6]),
      limit: 16.3,
    },
    {
      name: 'top-k 6 of two equal logits takes both',
      sampling: { topK: 6 },
      wanted: renormalised(softmax(LOGITS, 1), [2, 4, 0, 6, 3, 7]),
      limit: 20.5,
    },
    {
      name: 'top-k 5 of two equal logits takes the lower id',
      sampling: { topK: 5 },
      wanted: renormalised(softmax(LOGITS, 1), [2, 4, 0, 6, 3]),
      limit: 18.5,
    },
    {
      // .322 + .291 = .613 < .65 <= .758
      name: 'top-p 0.65',
      sampling: { topP: 0.65 },
      wanted: renormalised(softmax(LOGITS, 1), [2, 4, 0]),
      limit: 13.8,
    },
    {
      // e^-1.2 = .301: ids 2, 4, 0 (e^-0.8) and 6 (e^-1.2).
      name: 'min-p 0.3',
      sampling: { minP: 0.3 },
      wanted: renormalised(softmax(LOGITS, 1), [2, 4, 0, 6]),
      limit: 16.3,
    },
    {
      name: 'top-k 4 and then top-p 0.8 of what it left',
      sampling: { topK: 4, topP: 0.8 },
      wanted: renormalised(softmax(LOGITS, 1), [2, 4, 0]),
      limit: 13.8,
    },
  ])('draws in proportion: $name', ({ sampling, wanted, limit }) => {
    expect(chiSquare(draws(LOGITS, sampling, 20_000), wanted)).toBeLessThan(limit);
  });

  it('always keeps the best token when top-p is tiny', () => {
    expect(draws(LOGITS, { topP: 1e-9 }, 50)[2]).toBe(50);
  });

  it('repeats a run with its seed and differs with another', () => {
    const one = draws(LOGITS, {}, 300, 1);
    expect(draws(LOGITS, {}, 300, 1)).toEqual(one);
    expect(draws(LOGITS, {}, 300, 2)).not.toEqual(one);
  });

  it('adds the logit bias and bans at -100', () => {
    expect(sampleOnce(LOGITS, { logitBias: [[5, 4]] }).tokenId).toBe(5);
    expect(draws(LOGITS, { logitBias: [[2, -100]] }, 500)[2]).toBe(0);
    expect(sampleOnce(LOGITS, { logitBias: [[99, 5]] }).tokenId).toBe(2);
  });

  it('penalises what the window holds: repetition, presence per token, frequency per use', () => {
    expect(sampleOnce([2, 1.9, -1], { repetitionPenalty: 1.1 }, [0]).tokenId).toBe(1);
    expect(sampleOnce([-1, -1.05], { repetitionPenalty: 1.1 }, [0]).tokenId).toBe(1);
    expect(sampleOnce([2, 1.9], { presencePenalty: 0.2 }, [0]).tokenId).toBe(1);
    expect(sampleOnce([2, 1.5], { frequencyPenalty: 0.2 }, [0, 0]).tokenId).toBe(0);
    expect(sampleOnce([2, 1.5], { frequencyPenalty: 0.2 }, [0, 0, 0]).tokenId).toBe(1);
    expect(sampleOnce([2, 1.9], { presencePenalty: 0.2, penaltyWindow: 2 }, [0, 1, 1]).tokenId).toBe(0);
  });

  it('reports logprobs of the model, before bias and penalties', () => {
    const { tokenId, logprob, topLogprobs } = sampleOnce(LOGITS, { topLogprobs: 2, logitBias: [[5, 9]] });
    const wanted = softmax(LOGITS, 1).map(Math.log);
    expect(tokenId).toBe(5);
    expect(logprob).toBeCloseTo(wanted[5]!, 5);
    expect(topLogprobs.map((top) => top.tokenId)).toEqual([2, 4]);
    expect(topLogprobs[1]!.logprob).toBeCloseTo(wanted[4]!, 5);
    expect(sampleOnce(LOGITS, {})).toMatchObject({ logprob: null, topLogprobs: [] });
    expect(sampleOnce(LOGITS, { topLogprobs: 0 }).logprob).toBeCloseTo(wanted[2]!, 5);
  });
});

describe('Sampler.sample() with tokens that end the answer', () => {
  const few = (...ids: number[]) => ({ kind: 'few', ids: Int32Array.from(ids) }) as const;
  const many = (...ids: number[]) =>
    ({ kind: 'many', bits: Uint32Array.of(ids.reduce((all, id) => all | (1 << id), 0)) }) as const;
  const drawn = (
    allowed: Parameters<Sampler['sample']>[2],
    stops: readonly number[],
    mayStop: boolean,
    { logits = LOGITS, ...sampling }: Partial<Sampling> & { logits?: readonly number[] } = {},
  ) => {
    const sampler = new Sampler({ ...GREEDY, ...sampling }, 0, new SamplerScratch(logits.length));
    return sampler.sample(Float32Array.from(logits), [], allowed, new Set(stops), mayStop).tokenId;
  };

  it('draws none of them before the answer is long enough', () => {
    expect(drawn(null, [2, 4], true)).toBe(2);
    expect(drawn(null, [2, 4], false)).toBe(0);
    expect(drawn(null, [2, 99, -1], false)).toBe(4);
    for (let seed = 0; seed < 200; ++seed) {
      expect([2, 4]).not.toContain(drawn(null, [2, 4], false, { temperature: 5, seed }));
    }
    const nothing = { logits: [Number.NaN, Number.NaN, Number.NaN] };
    expect([drawn(null, [0], true, nothing), drawn(null, [0], false, nothing)]).toEqual([0, 1]);
  });

  it.each([
    { name: 'few', mask: few(2, 5) },
    { name: 'many', mask: many(2, 5) },
  ])('leaves them to a format that may end, once the answer is long enough: $name', ({ mask }) => {
    expect(drawn({ mask, mayEnd: true }, [4], true)).toBe(2);
    expect(drawn({ mask, mayEnd: true }, [2], true)).toBe(2);
    expect(drawn({ mask, mayEnd: true }, [2], false)).toBe(5);
    expect(drawn({ mask, mayEnd: false }, [2], true)).toBe(5);
    const nothing = { logits: new Array<number>(8).fill(Number.NaN) };
    expect(drawn({ mask, mayEnd: true }, [2], false, nothing)).toBe(5);
  });

  it.each([
    { name: 'few', mask: few(2, 5) },
    { name: 'many', mask: many(2, 5) },
  ])('draws one of them where a format leaves nothing else: $name', ({ mask }) => {
    expect(drawn({ mask, mayEnd: true }, [2, 4, 5], false)).toBe(2);
    expect(drawn({ mask, mayEnd: true }, [2, 4, 5], true, { logitBias: [[4, 9]] })).toBe(4);
    expect(drawn({ mask, mayEnd: false }, [2, 4, 5], true, { logitBias: [[4, 9]] })).toBe(2);
    expect(drawn({ mask, mayEnd: false }, [2, 5], false)).toBe(2);
  });
});

describe('Random', () => {
  it('is uniform over 16 bins and repeats for the same seed only', () => {
    const random = new Random(3);
    const bins = new Array<number>(16).fill(0);
    for (let i = 0; i < 32_000; ++i) {
      const bin = Math.floor(random.next() * 16);
      bins[bin] = bins[bin]! + 1;
    }
    // 99.9 % quantile with 15 degrees of freedom.
    expect(chiSquare(bins, new Array<number>(16).fill(1 / 16))).toBeLessThan(37.7);
    const first = (seed: number) =>
      Array.from(
        { length: 4 },
        (
          (stream) => () =>
            stream.next()
        )(new Random(seed)),
      );
    expect(first(7)).toEqual(first(7));
    const seeds = [0, 1, -1, 7, 2 ** 32 + 7, 2 ** 53 - 1];
    expect(new Set(seeds.map((seed) => first(seed).join())).size).toBe(seeds.length);
  });
});
