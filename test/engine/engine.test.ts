import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GREEDY, type Mode, type Usage } from '../../src/engine/types.js';
import { fakeEngine, TOY_ARCHITECTURE, TOY_GEOMETRY, toyOffset, toyRequest } from '../helpers/fake-engine.js';

const usageOf = (outcome: { events: readonly { kind: string }[] }): Usage => {
  const finish = outcome.events.find((event) => event.kind === 'finish') as { usage: Usage } | undefined;
  if (finish === undefined) throw new Error('the answer did not finish');
  return finish.usage;
};

/** The answer to one prompt, alone, everything resident, in one chunk. */
function reference(prompt: number, length: number, tokens: number, mode: Mode = 'exact'): number[] {
  const { engine, outcome, runAll } = fakeEngine({ chunkTokens: 64, maxSequences: 1, mode });
  engine.generate(1, toyRequest(prompt, length, tokens));
  runAll();
  return outcome(1).tokens;
}

describe('Engine.generate()', () => {
  it('yields the same tokens whatever slots, chunk, company, gear, block supply and read order', () => {
    const references = [0, 1, 2].map((prompt) => reference(prompt, 20 + prompt * 9, 12));
    fc.assert(
      fc.property(
        fc.record({
          experts: fc.integer({ min: 1, max: 36 }),
          extraBitSlots: fc.integer({ min: 0, max: 3 }),
          chunkTokens: fc.integer({ min: 1, max: 40 }),
          kvBlocks: fc.integer({ min: 4, max: 9 }),
          maxSequences: fc.integer({ min: 1, max: 3 }),
          maxLogitRows: fc.integer({ min: 1, max: 3 }),
          keepsPrefixes: fc.boolean(),
          gear: fc.constantFrom('auto' as const, 'joint' as const, 'burst' as const),
          tokenGapMs: fc.constantFrom(0, 50, 100_000),
          seed: fc.integer({ min: 1, max: 1 << 30 }),
        }),
        (options) => {
          const { engine, native, outcome, runAll } = fakeEngine(options);
          for (const prompt of [0, 1, 2]) engine.generate(prompt, toyRequest(prompt, 20 + prompt * 9, 12));
          runAll();
          expect(native.unserved).toBe(0);
          for (const prompt of [0, 1, 2]) expect(outcome(prompt).tokens).toEqual(references[prompt]);
        },
      ),
      { numRuns: 60, seed: 7 },
    );
  });

  it('yields the same tokens in mode routed whatever is resident', () => {
    const wanted = reference(3, 30, 15, 'routed');
    expect(wanted).not.toEqual(reference(3, 30, 15, 'exact'));
    for (const experts of [1, 2, 5, 11, 36]) {
      const { engine, outcome, runAll } = fakeEngine({ experts, mode: 'routed', chunkTokens: 8, seed: experts });
      engine.generate(1, toyRequest(3, 30, 15));
      runAll();
      expect(outcome(1).tokens).toEqual(wanted);
      const usage = usageOf(outcome(1));
      expect(usage.meanBits).toBeGreaterThan(2);
      expect(usage.meanBits).toBeLessThan(4);
      expect(usage.shareBelowFullLevel).toBeGreaterThan(0.1);
    }
  });

  it('serves modes mixed in one batch as each alone', () => {
    const exact = reference(4, 25, 10, 'exact');
    const routed = reference(5, 25, 10, 'routed');
    const { engine, outcome, runAll } = fakeEngine({ experts: 6 });
    engine.generate(1, toyRequest(4, 25, 10));
    engine.generate(2, toyRequest(5, 25, 10, { precision: { mode: 'routed' } }));
    runAll();
    expect(outcome(1).tokens).toEqual(exact);
    expect(outcome(2).tokens).toEqual(routed);
    expect(usageOf(outcome(1))).toMatchObject({
      meanBits: 4,
      shareBelowFullLevel: 0,
      promptTokens: 25,
      completionTokens: 10,
    });
  });

  it('reads each missing expert once per chunk and checks each plane on its first read only', () => {
    const { engine, native, runAll } = fakeEngine({ experts: 4, chunkTokens: 32 });
    engine.generate(1, toyRequest(1, 32, 1));
    engine.step();
    const keys = native.submitted.map((read) => read.key);
    expect(new Set(keys).size).toBe(keys.length);
    expect(native.submitted.every((read) => read.checks === 3)).toBe(true);
    engine.generate(2, toyRequest(1, 32, 4));
    runAll();
    const seen = new Set<number>();
    for (const read of native.submitted) {
      expect(read.checks > 0).toBe(!seen.has(read.key));
      seen.add(read.key);
    }
    expect(native.submitted.length).toBeGreaterThan(seen.size);
  });

  it('ends with stop and without the token when a stop token comes', () => {
    const tokens = reference(6, 10, 12);
    const stop = tokens[5]!;
    const { engine, outcome, runAll } = fakeEngine();
    engine.generate(1, toyRequest(6, 10, 12, { stopTokenIds: [stop] }));
    runAll();
    expect(outcome(1).tokens).toEqual(tokens.slice(0, tokens.indexOf(stop)));
    expect(outcome(1).events.at(-1)).toMatchObject({ kind: 'finish', reason: 'stop' });
  });

  it('draws no stop token before minTokens, alone, in company and after its blocks were taken away', () => {
    const asked = (stop: number) => ({ stopTokenIds: [stop], minTokens: 6 });
    const lone = (prompt: number, more: object) => {
      const { engine, outcome, runAll } = fakeEngine();
      engine.generate(1, toyRequest(prompt, 24, 12, more));
      runAll();
      return outcome(1);
    };
    const stops = [6, 7].map((prompt) => reference(prompt, 24, 12)[2]!);
    const wanted = [6, 7].map((prompt, i) => lone(prompt, asked(stops[i]!)));
    for (const [i, { tokens }] of wanted.entries()) {
      expect(tokens.slice(0, 2)).toEqual(reference(6 + i, 24, 12).slice(0, 2));
      expect(tokens.length).toBeGreaterThanOrEqual(6);
      expect(tokens.slice(0, 6)).not.toContain(stops[i]);
    }
    for (const kvBlocks of [3, 9]) {
      const { engine, outcome, runAll } = fakeEngine({ kvBlocks, maxSequences: 2, chunkTokens: 5 });
      for (const i of [0, 1]) engine.generate(i, toyRequest(6 + i, 24, 12, asked(stops[i]!)));
      runAll();
      for (const i of [0, 1]) expect(outcome(i).tokens).toEqual(wanted[i]!.tokens);
    }
    expect(() => lone(6, { minTokens: -1 })).toThrow(/minTokens/);
  });

  it('ends with length at the end of the context when no limit is given', () => {
    const { engine, outcome, runAll } = fakeEngine({ contextLength: 64 });
    engine.generate(1, toyRequest(6, 50, null));
    runAll();
    expect(outcome(1).tokens).toHaveLength(14);
    expect(outcome(1).events.at(-1)).toMatchObject({ kind: 'finish', reason: 'length' });
  });

  it('reports prefill as it goes and logprobs where asked for', () => {
    const { engine, outcome, runAll } = fakeEngine({ chunkTokens: 8 });
    engine.generate(1, toyRequest(2, 20, 2, { sampling: { ...GREEDY, topLogprobs: 3 } }));
    runAll();
    const prefills = outcome(1).events.filter((event) => event.kind === 'prefill');
    expect(prefills).toEqual([8, 16, 20].map((done) => ({ kind: 'prefill', done, total: 20, cached: 0 })));
    const token = outcome(1).events.find((event) => event.kind === 'token');
    expect(token).toMatchObject({ tokenId: outcome(1).tokens[0] });
    if (token?.kind !== 'token') throw new Error('no token');
    expect(token.topLogprobs).toHaveLength(3);
    expect(token.topLogprobs[0]).toEqual({ tokenId: token.tokenId, logprob: token.logprob });
  });

  it('throws CONTEXT_LENGTH_EXCEEDED, INVALID_REQUEST and QUEUE_FULL before anything runs', () => {
    const { engine, native } = fakeEngine({ contextLength: 64, maxSequences: 1, maxQueued: 1 });
    expect(() => engine.generate(1, toyRequest(1, 64, 1))).toThrow(
      expect.objectContaining({ code: 'CONTEXT_LENGTH_EXCEEDED' }),
    );
    expect(() => engine.generate(1, { ...toyRequest(1, 1, 1), promptIds: [] })).toThrow(/got 0 tokens/);
    expect(() => engine.generate(1, { ...toyRequest(1, 1, 1), promptIds: [TOY_ARCHITECTURE.vocabSize] })).toThrow(
      expect.objectContaining({ code: 'INVALID_REQUEST' }),
    );
    engine.generate(2, toyRequest(1, 5, 1));
    engine.generate(3, toyRequest(2, 5, 1));
    expect(() => engine.generate(4, toyRequest(3, 5, 1))).toThrow(expect.objectContaining({ code: 'QUEUE_FULL' }));
    expect(native.batches).toBe(0);
  });

  it('takes a request when the last step made room for the one that waits', () => {
    const { engine, outcome, runAll } = fakeEngine({ maxSequences: 1, maxQueued: 1 });
    engine.generate(1, toyRequest(1, 5, 1));
    engine.generate(2, toyRequest(2, 5, 1));
    engine.step();
    engine.generate(3, toyRequest(3, 5, 1));
    runAll();
    expect([1, 2, 3].map((id) => outcome(id).tokens.length)).toEqual([1, 1, 1]);
  });

  it('refuses numbers that the sampler cannot draw with', () => {
    const { engine } = fakeEngine();
    const bad: Partial<typeof GREEDY>[] = [
      { temperature: Number.NaN },
      { temperature: -1 },
      { minP: 2, temperature: 1 },
      { topP: -0.1 },
      { topK: -1 },
      { repetitionPenalty: 0 },
      { frequencyPenalty: Number.POSITIVE_INFINITY },
      { seed: Number.NaN },
      { topLogprobs: 21 },
      { logitBias: [[1, Number.NaN]] },
    ];
    for (const more of bad) {
      const request = toyRequest(1, 5, 1, { sampling: { ...GREEDY, ...more } });
      expect(() => engine.generate(1, request), JSON.stringify(more)).toThrow(/Cannot draw tokens with/);
    }
    expect(() => engine.generate(1, toyRequest(1, 5, Number.NaN))).toThrow(/maxTokens NaN/);
    expect(engine.hasWork).toBe(false);
  });

  it('takes a request without a queue while there is a place', () => {
    const { engine } = fakeEngine({ maxSequences: 1, maxQueued: 0 });
    engine.generate(1, toyRequest(1, 5, 1));
    expect(() => engine.generate(2, toyRequest(1, 5, 1))).toThrow(expect.objectContaining({ code: 'QUEUE_FULL' }));
  });
});

describe('Engine admission', () => {
  it('lets in high priority first, then whoever of the clients has fewer answers running', () => {
    const { engine, outcome } = fakeEngine({ maxSequences: 1, maxQueued: 8 });
    const order: number[] = [];
    const ask = (id: number, client: string, more = {}) =>
      engine.generate(id, toyRequest(id, 4, 2, { client, ...more }));
    ask(1, 'a');
    ask(2, 'a');
    ask(3, 'b');
    ask(4, 'b', { priority: 'low' });
    ask(5, 'a', { priority: 'high' });
    while (engine.hasWork) {
      engine.step();
      for (let id = 1; id <= 5; ++id) {
        if (!order.includes(id) && outcome(id).events.at(-1)?.kind === 'finish') order.push(id);
      }
    }
    expect(order).toEqual([1, 5, 2, 3, 4]);
  });
});

describe('Engine failures', () => {
  it('end the sequences routed to the expert that cannot be read, and only them', () => {
    // Find an expert that one of two prompts needs within its answer and the other does not.
    const keysOf = (prompt: number) => {
      const { engine, native, runAll } = fakeEngine({ experts: 1 });
      engine.generate(1, toyRequest(prompt, 3, 4));
      runAll();
      return new Set(native.submitted.map((read) => read.key));
    };
    const [first, second] = [keysOf(11), keysOf(12)];
    const key = [...first].find((candidate) => !second.has(candidate));
    if (key === undefined) throw new Error('the prompts share all experts: choose others');
    const offset = key * TOY_GEOMETRY.recordBytes;
    const { engine, outcome, runAll } = fakeEngine({ experts: 8, faultRanges: [offset, offset + 1] });
    engine.generate(1, toyRequest(11, 3, 4));
    engine.generate(2, toyRequest(12, 3, 4));
    runAll();
    const layer = Math.floor(key / TOY_ARCHITECTURE.expertCount) + 1;
    expect(outcome(1).error).toMatchObject({
      code: 'EXPERT_READ_FAILED',
      details: { layer, expert: key % TOY_ARCHITECTURE.expertCount, errorName: 'EIO', offset },
    });
    expect(outcome(2).error).toBeNull();
    expect(outcome(2).tokens).toEqual(reference(12, 3, 4));
    expect(engine.metrics().readErrors).toBeGreaterThan(0);
    // Later requests that do not need it still run.
    engine.generate(3, toyRequest(12, 3, 4));
    runAll();
    expect(outcome(3).tokens).toEqual(reference(12, 3, 4));
  });

  it('leave the failed tokens out of the layers that follow', () => {
    const faults = [toyOffset(1, 0), toyOffset(1, TOY_ARCHITECTURE.expertCount - 1) + TOY_GEOMETRY.recordBytes];
    const { engine, native, outcome } = fakeEngine({ faultRanges: faults });
    engine.generate(1, toyRequest(1, 3, 4));
    engine.step();
    expect(outcome(1).error).toMatchObject({ code: 'EXPERT_READ_FAILED', details: { layer: 1 } });
    expect(native.submitted.every((read) => read.key < TOY_ARCHITECTURE.expertCount)).toBe(true);
  });

  it('release slots and blocks whatever fails', () => {
    const faults = [1, 2, 3].flatMap((layer) => [toyOffset(layer, 0), toyOffset(layer, 0) + 1]);
    for (const experts of [1, 3, 9]) {
      const { engine, outcome, runAll } = fakeEngine({ experts, faultRanges: faults, seed: experts });
      for (let id = 0; id < 8; ++id) engine.generate(id, toyRequest(id, 20, 6));
      runAll();
      for (let id = 0; id < 8; ++id) expect(outcome(id).error?.code ?? 'fine').toMatch(/EXPERT_READ_FAILED|fine/);
      expect(engine.metrics()).toMatchObject({ kvBlocksUsed: 0, sequencesOpen: 0, sequencesQueued: 0 });
    }
  });
});

describe('Engine.abort()', () => {
  it('frees a running and a waiting sequence at once, and others go on', () => {
    const { engine, outcome, runAll } = fakeEngine({ maxSequences: 2 });
    for (const id of [1, 2, 3]) engine.generate(id, toyRequest(id, 12, 20));
    engine.step();
    engine.step();
    engine.abort(1);
    engine.abort(3);
    engine.abort(99);
    expect(engine.metrics()).toMatchObject({ sequencesOpen: 1, sequencesQueued: 0, requestsCancelled: 2 });
    const soFar = outcome(1).events.length;
    runAll();
    expect(outcome(1).events).toHaveLength(soFar);
    expect(outcome(2).tokens).toEqual(reference(2, 12, 20));
    expect(engine.metrics().kvBlocksUsed).toBe(0);
  });
});

describe('Engine.acknowledge()', () => {
  it('lets a sequence run on that waited for its reader', () => {
    const { engine, outcome, runAll } = fakeEngine({ contextLength: 400, kvBlocks: 16 });
    engine.generate(1, toyRequest(1, 2, null));
    runAll();
    expect(outcome(1).tokens).toHaveLength(256);
    expect(engine.hasWork).toBe(false);
    engine.acknowledge(1, 200);
    runAll();
    expect(outcome(1).tokens).toHaveLength(398);
  });
});

describe('Engine with too few KV blocks', () => {
  it('waits when the only sequence that could run lacks blocks that an unread one holds', () => {
    const { engine, outcome, runAll } = fakeEngine({ contextLength: 400, kvBlocks: 13 });
    engine.generate(1, toyRequest(1, 2, null));
    runAll();
    expect(outcome(1).tokens).toHaveLength(256);
    engine.generate(2, toyRequest(2, 5, 150));
    for (let step = 0; step < 200; ++step) engine.step();
    expect(outcome(2).tokens.length).toBeLessThan(150);
    expect(engine.step()).toBe(false);
    engine.acknowledge(1, 256);
    runAll();
    expect(outcome(1).tokens).toHaveLength(398);
    const { engine: quiet, outcome: alone, runAll: runQuiet } = fakeEngine({ contextLength: 400 });
    quiet.generate(2, toyRequest(2, 5, 150));
    runQuiet();
    expect(outcome(2).tokens).toEqual(alone(2).tokens);
  });

  it('runs another sequence when the chosen one had to give its blocks back', () => {
    const { engine, outcome, runAll } = fakeEngine({ contextLength: 400, kvBlocks: 13, chunkTokens: 1 });
    for (const id of [1, 2]) engine.generate(id, toyRequest(id, 1, 280));
    while (engine.step()) for (const id of [1, 2]) engine.acknowledge(id, 1);
    expect(engine.hasWork).toBe(false);
    runAll();
    for (const id of [1, 2]) expect(outcome(id).tokens).toHaveLength(280);
  });

  it('counts what was read of a sequence while it waits for blocks', () => {
    const { engine, outcome, runAll } = fakeEngine({ contextLength: 400, kvBlocks: 13 });
    engine.generate(1, toyRequest(1, 2, null));
    engine.generate(2, toyRequest(2, 2, null));
    while (engine.metrics().sequencesQueued === 0) {
      engine.step();
      engine.acknowledge(1, 1);
    }
    const before = outcome(2).tokens.length;
    expect(before).toBeGreaterThan(150);
    engine.acknowledge(2, before);
    for (let step = 0; outcome(1).tokens.length < 398 && step < 400; ++step) {
      engine.step();
      engine.acknowledge(1, 1);
    }
    runAll();
    expect(outcome(2).tokens).toHaveLength(398);
  });
});

describe('Engine.evaluate()', () => {
  it('leaves the answers that share its steps as they are alone', () => {
    const { engine, outcome, runAll } = fakeEngine({ chunkTokens: 32 });
    engine.generate(1, toyRequest(1, 5, 8));
    engine.evaluate(2, toyRequest(2, 9, 0).promptIds);
    runAll();
    expect(outcome(1).tokens).toEqual(reference(1, 5, 8));
    const other = fakeEngine();
    other.engine.evaluate(1, toyRequest(2, 9, 0).promptIds);
    other.runAll();
    expect(outcome(2).logits).toEqual(other.outcome(1).logits);
  });

  it('gives the logits from a position on, in any chunks and when its blocks were lent out', () => {
    const { promptIds } = toyRequest(4, 60, 0);
    const whole = fakeEngine({ chunkTokens: 64 });
    whole.engine.evaluate(1, promptIds);
    whole.runAll();
    const { vocabSize } = TOY_ARCHITECTURE;
    for (const from of [0, 1, 7, 8, 35, 59]) {
      const { engine, outcome, runAll } = fakeEngine({ chunkTokens: 8, kvBlocks: 4, maxLogitRows: 3 });
      engine.generate(1, toyRequest(1, 30, 40));
      engine.evaluate(2, promptIds, { from });
      runAll();
      expect(outcome(2).logits).toEqual(whole.outcome(1).logits!.slice(from * vocabSize));
    }
  });

  it('refuses positions that are not there, and more logits than evaluations may hold', () => {
    const { engine } = fakeEngine();
    const { promptIds } = toyRequest(1, 10, 0);
    for (const from of [-1, 10, 0.5, Number.NaN]) {
      expect(() => engine.evaluate(1, promptIds, { from })).toThrow(
        expect.objectContaining({ code: 'INVALID_REQUEST' }),
      );
    }
    const large = fakeEngine({ vocabSize: 1 << 22 });
    const forty = toyRequest(1, 40, 0).promptIds;
    expect(() => large.engine.evaluate(1, forty)).toThrow(/take 640.* MiB, needed at most 512/);
    large.engine.evaluate(1, forty, { from: 12 });
    large.engine.evaluate(2, forty, { from: 20 });
    large.engine.generate(3, toyRequest(1, 5, 1));
    expect(large.engine.metrics()).toMatchObject({ sequencesOpen: 1, sequencesQueued: 2 });
  });

  it('gives the logits that generation sampled from, in any chunks', () => {
    const prompt = toyRequest(4, 21, 6);
    const { engine, outcome, runAll } = fakeEngine({ experts: 3, chunkTokens: 5 });
    engine.generate(1, prompt);
    runAll();
    const tokens = [...prompt.promptIds, ...outcome(1).tokens];
    engine.evaluate(2, tokens);
    runAll();
    const { vocabSize } = TOY_ARCHITECTURE;
    const logits = outcome(2).logits!;
    expect(logits).toHaveLength(tokens.length * vocabSize);
    for (const [i, token] of outcome(1).tokens.entries()) {
      const row = logits.subarray((20 + i) * vocabSize, (21 + i) * vocabSize);
      expect(row.indexOf(Math.max(...row))).toBe(token);
    }
  });
});

describe('Engine.metrics()', () => {
  it('counts hits, misses, bytes and tokens of prefill and decode apart', () => {
    const { engine, native, outcome, runAll } = fakeEngine({ experts: 6 });
    engine.generate(1, toyRequest(1, 16, 9));
    runAll();
    const metrics = engine.metrics();
    expect(metrics).toMatchObject({ tokensPrefilled: 16, tokensDecoded: 8, steps: 9 });
    const expertBytes = 4 * TOY_GEOMETRY.bitBytes + TOY_GEOMETRY.scaleBytes;
    expect(metrics.bytesRead).toBe(native.submitted.length * expertBytes);
    expect(metrics.missedBytes).toBe(metrics.bytesRead);
    expect(metrics.misses).toBe(native.submitted.length);
    expect(metrics.decode.hits + metrics.decode.misses).toBe(8 * 3 * TOY_ARCHITECTURE.topK);
    expect(metrics.decode.missedBytes).toBe(metrics.decode.misses * expertBytes);
    expect(metrics.residentByBits).toEqual({ 4: metrics.slotsUsed / 4 });
    expect(usageOf(outcome(1)).bytesRead).toBe(metrics.bytesRead);
  });
});
