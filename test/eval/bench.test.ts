import { describe, expect, it } from 'vitest';
import type { EngineMetrics } from '../../src/engine/engine-metrics.js';
import type { EngineClient, EngineEvent, GenerateRequest } from '../../src/engine/types.js';
import { medianOf, runBench } from '../../src/eval/bench.js';

const PREFETCH = { reads: 2, bytes: 30, usefulBytes: 20, lateBytes: 10, wastedBytes: 10, offReason: null };

/** An engine that takes 10 ms for a prompt token and a time of its own for each new one, on a clock of its own. */
function clockedEngine(decodeMs: readonly number[]) {
  let clock = 0;
  let run = 0;
  let tokensDecoded = 0;
  const asked: GenerateRequest[] = [];
  const client = {
    info: {
      modelName: 'm',
      level: 4,
      mode: 'exact',
      isa: 'avx2',
      threads: 2,
      vocabSize: 50,
      memory: { total: 1000, maxSequences: 4 },
    },
    async metrics() {
      const hits = tokensDecoded * 6;
      const decode = { hits, misses: tokensDecoded * 2, bytesRead: tokensDecoded * 100, stallMs: tokensDecoded / 2 };
      return { tokensDecoded, decode, prefetch: PREFETCH } as unknown as EngineMetrics;
    },
    async *generate(request: GenerateRequest): AsyncIterable<EngineEvent> {
      asked.push(request);
      const own = decodeMs[run++ % decodeMs.length]!;
      const prefillMs = 10 * request.promptIds.length;
      clock += prefillMs + 1;
      for (let token = 0; token < request.maxTokens!; ++token) {
        if (token > 0) {
          clock += own;
          ++tokensDecoded;
        }
        yield { kind: 'token', tokenId: 1, logprob: null, topLogprobs: [] };
      }
      yield { kind: 'finish', reason: 'length', usage: { prefillMs } as never };
    },
  };
  return { client: client as unknown as EngineClient, asked, now: () => clock };
}

describe('runBench()', () => {
  it('runBench() gives medians over the repeats, decode from the first token on, the warm-up left out', async () => {
    const { client, asked, now } = clockedEngine([1000, 2, 4, 50]);
    const lines: string[] = [];
    const request = {
      promptTokens: 20,
      newTokens: 11,
      streams: 1,
      repeats: 3,
      seed: 1,
      onProgress: (line: string) => lines.push(line),
    };
    const result = await runBench(client, request, now);
    expect(result).toMatchObject({
      model: 'm',
      level: 4,
      mode: 'exact',
      budgetBytes: 1000,
      maxSequences: 4,
      promptTokens: 20,
      newTokens: 11,
      prefillTps: 100,
      decodeTps: 250,
      ttftMs: 201,
      stallMs: 0.5,
      bytesReadPerToken: 100,
      hitRate: 0.75,
      prefetch: PREFETCH,
      threads: 2,
      isa: 'avx2',
    });
    expect(result.peakRssBytes).toBeGreaterThan(1 << 20);
    expect(lines).toHaveLength(3);
    expect(asked.map((one) => one.promptIds.length)).toEqual([16, 20, 20, 20]);
    expect(asked[1]!.promptIds).not.toEqual(asked[2]!.promptIds);
    for (const { promptIds, stopTokenIds } of asked) {
      expect(stopTokenIds).toEqual([]);
      expect(promptIds.every((id) => id >= 0 && id < 50)).toBe(true);
    }
  });

  it('runBench() asks for the same prompts when the seed is the same', async () => {
    const promptsOf = async (seed: number) => {
      const { client, asked, now } = clockedEngine([1]);
      await runBench(
        client,
        { promptTokens: 5, newTokens: 2, streams: 1, repeats: 1, seed, onProgress: () => {} },
        now,
      );
      return asked.map((request) => request.promptIds);
    };
    expect(await promptsOf(3)).toEqual(await promptsOf(3));
    expect(await promptsOf(3)).not.toEqual(await promptsOf(4));
  });
});

describe('medianOf()', () => {
  it.each([
    [[3], 3],
    [[5, 1], 3],
    [[9, 1, 2], 2],
  ])('medianOf(%j) is %d', (values, median) => {
    expect(medianOf(values)).toBe(median);
  });
});
