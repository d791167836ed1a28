/** Prefixes in memory, over the toy engine: what is found, what is computed, and that answers stay as they are. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GREEDY, type Mode, type Usage } from '../../../src/engine/types.js';
import { fakeEngine, type Outcome, toyBudget, toyRequest } from '../../helpers/fake-engine.js';

const usageOf = ({ events }: Outcome): Usage => {
  const finish = events.find((event) => event.kind === 'finish');
  if (finish?.kind !== 'finish') throw new Error('the answer did not finish');
  return finish.usage;
};
const LONG = toyRequest(1, 100, 8);
const begunAs = (length: number, ...more: readonly number[]) => ({
  ...LONG,
  promptIds: [...LONG.promptIds.slice(0, length), ...more],
});

function answered(request: typeof LONG, mode: Mode = 'exact'): number[] {
  const { engine, outcome, runAll } = fakeEngine({ mode });
  engine.generate(1, request);
  runAll();
  return outcome(1).tokens;
}

describe('prefixes of past requests', () => {
  it.each([
    ['the same prompt again, but for its last token', LONG, 99],
    ['whole blocks and a part of one', begunAs(90, 3, 4), 90],
    ['whole blocks alone', begunAs(64, 3, 4), 64],
    ['a part of the first block', begunAs(20, 3), 20],
    ['one token', begunAs(1, 96), 1],
    ['nothing', toyRequest(2, 40, 8), 0],
  ])('are taken from memory: %s', (_, request, cached) => {
    const { engine, native, outcome, runAll } = fakeEngine({ keepsPrefixes: true, chunkTokens: 64 });
    engine.generate(1, LONG);
    runAll();
    const { tokensPrefilled } = engine.metrics();
    engine.generate(2, request);
    runAll();
    expect(outcome(2).tokens).toEqual(answered(request));
    expect(usageOf(outcome(2))).toMatchObject({ cachedTokens: cached, promptTokens: request.promptIds.length });
    const { prefix, ...metrics } = engine.metrics();
    expect(metrics.tokensPrefilled - tokensPrefilled).toBe(request.promptIds.length - cached);
    expect(prefix).toMatchObject({ lookups: 2, hits: cached > 0 ? 1 : 0, tokensReused: cached });
    expect(metrics.kvBlocksUsed).toBe(0);
    expect(native.unserved).toBe(0);
  });

  it('go on with the answer, as the next turn of a chat does', () => {
    const { engine, outcome, runAll } = fakeEngine({ keepsPrefixes: true });
    engine.generate(1, toyRequest(1, 50, 10));
    runAll();
    const next = { ...LONG, promptIds: [...toyRequest(1, 50, 10).promptIds, ...outcome(1).tokens, 5, 6, 7] };
    engine.generate(2, next);
    runAll();
    // The last token of the answer was never an input.
    expect(usageOf(outcome(2)).cachedTokens).toBe(59);
    expect(outcome(2).tokens).toEqual(answered(next));
  });

  it('are shared with an answer that is still under way, and never written to', () => {
    const { engine, outcome, runAll } = fakeEngine({ keepsPrefixes: true, chunkTokens: 128 });
    engine.generate(1, { ...LONG, maxTokens: 20 });
    engine.step();
    engine.generate(2, begunAs(96, 1, 2, 3));
    engine.generate(3, begunAs(70, 1, 2, 3));
    expect(engine.metrics().prefix).toMatchObject({ hits: 2, tokensReused: 96 + 70 });
    // Those of the first, and one each beside them: the third has its own copy of a block of which it shares a part.
    expect(engine.metrics().kvBlocksUsed).toBe(4 + 1 + 1);
    runAll();
    expect(outcome(1).tokens).toEqual(answered({ ...LONG, maxTokens: 20 }));
    expect(outcome(2).tokens).toEqual(answered(begunAs(96, 1, 2, 3)));
    expect(outcome(3).tokens).toEqual(answered(begunAs(70, 1, 2, 3)));
  });

  it('are computed by one of those that come together, and the others wait for it', () => {
    const { engine, outcome, runAll } = fakeEngine({ keepsPrefixes: true, chunkTokens: 40, kvBlocks: 24 });
    const requests = [LONG, LONG, begunAs(90, 1, 2), begunAs(10, ...LONG.promptIds.slice(0, 60))];
    for (const [id, request] of requests.entries()) engine.generate(id, request);
    runAll();
    for (const [id, request] of requests.entries()) expect(outcome(id).tokens).toEqual(answered(request));
    // The last has too little in common to wait for it.
    expect(requests.map((_, id) => usageOf(outcome(id)).cachedTokens)).toEqual([0, 99, 90, 0]);
    expect(engine.metrics().tokensPrefilled).toBe(100 + 1 + 2 + 70);
    expect(engine.metrics().prefix).toMatchObject({ lookups: 4, hits: 2, tokensReused: 189 });
  });

  it('are there for one that comes while another writes its answer, to the token', () => {
    const { engine, outcome, runAll } = fakeEngine({ keepsPrefixes: true, chunkTokens: 128 });
    engine.generate(1, { ...LONG, maxTokens: 20 });
    for (let step = 0; step < 4; ++step) engine.step();
    engine.generate(2, LONG);
    runAll();
    expect(usageOf(outcome(2)).cachedTokens).toBe(99);
    expect(outcome(2).tokens).toEqual(answered(LONG));
  });

  it('go to those that wait as far as they are when the one that computes them goes away', () => {
    const { engine, outcome, runAll } = fakeEngine({ keepsPrefixes: true, chunkTokens: 20 });
    engine.generate(1, LONG);
    engine.generate(2, LONG);
    engine.step();
    engine.step();
    engine.abort(1);
    expect(engine.hasWork).toBe(true);
    runAll();
    expect(usageOf(outcome(2)).cachedTokens).toBe(40);
    expect(outcome(2).tokens).toEqual(answered(LONG));
    expect(engine.metrics().tokensPrefilled).toBe(100);
  });

  it('serve only requests at the same levels, and elastic ones never another mode', () => {
    const { engine, outcome, runAll } = fakeEngine({ keepsPrefixes: true, kvBlocks: 40, experts: 6, elasticPrice: 1 });
    const modes: readonly Mode[] = ['elastic', 'routed', 'exact'];
    for (const [id, mode] of modes.entries()) {
      engine.generate(id, { ...LONG, precision: { mode } });
      runAll();
      expect(usageOf(outcome(id)).cachedTokens).toBe(0);
    }
    expect(outcome(2).tokens).toEqual(answered(LONG));
    for (const [id, mode] of modes.entries()) {
      engine.generate(10 + id, { ...LONG, precision: { mode } });
      runAll();
      expect(usageOf(outcome(10 + id)).cachedTokens).toBe(99);
    }
    expect(outcome(12).tokens).toEqual(answered(LONG));
    expect(outcome(11).tokens).toEqual(answered(LONG, 'routed'));
    engine.generate(20, { ...LONG, precision: { mode: 'routed', bits: 2.5 } });
    runAll();
    expect(usageOf(outcome(20)).cachedTokens).toBe(0);
  });

  it('are not taken where every token of a prompt is looked at', () => {
    const { engine, outcome, runAll } = fakeEngine({ keepsPrefixes: true });
    const alone = fakeEngine();
    for (const one of [{ engine, runAll }, alone]) {
      one.engine.generate(1, LONG);
      one.runAll();
      one.engine.generate(2, { ...LONG, promptLogprobs: 2 });
      one.engine.evaluate(3, LONG.promptIds);
      one.engine.embed(4, LONG.promptIds, { pooling: 'mean' });
      one.runAll();
    }
    expect(outcome(2).events).toEqual(
      alone.outcome(2).events.map((event) => (event.kind === 'finish' ? expect.anything() : event)),
    );
    expect([outcome(3).logits, outcome(4).logits]).toEqual([alone.outcome(3).logits, alone.outcome(4).logits]);
    expect(engine.metrics().prefix).toMatchObject({ lookups: 1, hits: 0 });
  });

  it('are neither taken by a request that says so nor left by it, however they come', () => {
    const { engine, outcome, runAll } = fakeEngine({ keepsPrefixes: true, kvBlocks: 24, chunkTokens: 40 });
    const apart = { ...LONG, usesPrefixes: false };
    engine.generate(1, apart);
    runAll();
    expect(engine.metrics().prefix).toMatchObject({ lookups: 0, keptBytes: 0 });
    engine.generate(2, LONG);
    runAll();
    const { keptBytes } = engine.metrics().prefix;
    expect(usageOf(outcome(2)).cachedTokens).toBe(0);
    expect(keptBytes).toBeGreaterThan(0);
    // One that goes on from what is known, and one that comes beside others of the same prompt.
    engine.generate(3, { ...apart, promptIds: [...LONG.promptIds, 3, 4] });
    runAll();
    for (const [id, request] of [toyRequest(7, 100, 8), { ...toyRequest(7, 100, 8), usesPrefixes: false }].entries())
      engine.generate(4 + id, request);
    engine.generate(6, { ...toyRequest(8, 100, 8), usesPrefixes: false });
    engine.generate(7, toyRequest(8, 100, 8));
    runAll();
    for (const id of [1, 3, 5, 6, 7]) expect(usageOf(outcome(id)).cachedTokens).toBe(0);
    expect(outcome(1).tokens).toEqual(outcome(2).tokens);
    expect(outcome(5).tokens).toEqual(outcome(4).tokens);
    expect(outcome(6).tokens).toEqual(outcome(7).tokens);
    expect(engine.metrics().prefix).toMatchObject({ lookups: 3, hits: 0, tokensReused: 0 });
    expect(engine.metrics().tokensPrefilled).toBe(102 + 6 * 100);
  });

  it('are not kept of an answer that failed', () => {
    const { engine, outcome, runAll } = fakeEngine({ keepsPrefixes: true, experts: 4, faultRanges: [0, 1 << 30] });
    engine.generate(1, LONG);
    runAll();
    expect(outcome(1).error?.code).toBe('EXPERT_READ_FAILED');
    expect(engine.metrics().prefix.keptBytes).toBe(0);
  });

  it('take at most half of the KV cache, and give way to answers under way', () => {
    const { engine, outcome, runAll } = fakeEngine({
      keepsPrefixes: true,
      kvBlocks: 8,
      maxSequences: 2,
      maxQueued: 40,
    });
    const prompts = Array.from({ length: 12 }, (_, i) => toyRequest(i, 70, 6));
    for (const [id, request] of prompts.entries()) {
      engine.generate(id, request);
      runAll();
      expect(engine.metrics().prefix.keptBytes / 4096).toBeLessThanOrEqual(4);
    }
    engine.generate(50, toyRequest(20, 120, 6));
    engine.generate(51, toyRequest(21, 120, 6));
    expect(engine.metrics()).toMatchObject({ sequencesOpen: 2, kvBlocksUsed: 8 });
    runAll();
    for (const [id, request] of prompts.entries()) expect(outcome(id).tokens).toEqual(answered(request));
    for (const id of [50, 51]) expect(outcome(id).tokens).toEqual(answered(toyRequest(id - 30, 120, 6)));
    expect(engine.metrics().prefix.evictions).toBeGreaterThan(20);
  });

  it('go when memory is short, before answers under way give up theirs', () => {
    const { engine, outcome, runAll } = fakeEngine({ keepsPrefixes: true, keptExpertBytes: 40 * 20480, kvBlocks: 16 });
    engine.generate(1, LONG);
    runAll();
    engine.generate(2, { ...toyRequest(3, 64, 40) });
    engine.step();
    const before = engine.metrics();
    expect(before.prefix.keptBytes).toBe(4 * 4096);
    const computed = before.tokensPrefilled;
    engine.memory(toyBudget(6 * 20480, 4));
    expect(engine.metrics().prefix.keptBytes).toBeLessThanOrEqual(2 * 4096);
    runAll();
    expect(outcome(2).tokens).toEqual(answered(toyRequest(3, 64, 40)));
    // Nobody had to start over.
    expect(engine.metrics().tokensPrefilled).toBe(computed + 64 - 16);
  });

  it('change no token, whoever asks for what in whatever order and room', () => {
    const bases = [toyRequest(1, 100, 0), toyRequest(2, 100, 0)];
    const known = new Map<string, number[]>();
    const expected = (request: typeof LONG): number[] => {
      const key = request.promptIds.join();
      const found = known.get(key) ?? answered(request);
      known.set(key, found);
      return found;
    };
    fc.assert(
      fc.property(
        fc.record({
          kvBlocks: fc.integer({ min: 4, max: 14 }),
          chunkTokens: fc.integer({ min: 1, max: 40 }),
          maxSequences: fc.integer({ min: 1, max: 3 }),
          experts: fc.integer({ min: 3, max: 36 }),
        }),
        fc.array(
          fc.record({
            base: fc.nat(1),
            length: fc.constantFrom(0, 1, 16, 31, 32, 33, 64, 80, 96, 99),
            more: fc.integer({ min: 1, max: 3 }),
            steps: fc.nat(4),
            isAborted: fc.boolean(),
          }),
          { minLength: 2, maxLength: 8 },
        ),
        (options, asked) => {
          const { engine, outcome, runAll } = fakeEngine({ ...options, keepsPrefixes: true, maxQueued: 20 });
          const requests = asked.map(({ base, length, more }) => ({
            promptIds: [...bases[base]!.promptIds.slice(0, length), ...[60, 61, 62].slice(0, more)],
            maxTokens: 5,
            stopTokenIds: [],
            sampling: GREEDY,
          }));
          for (const [id, request] of requests.entries()) {
            engine.generate(id, request);
            for (let step = 0; step < asked[id]!.steps; ++step) engine.step();
            if (asked[id]!.isAborted && id % 3 === 0) engine.abort(id);
          }
          runAll();
          for (const [id, request] of requests.entries()) {
            if (asked[id]!.isAborted && id % 3 === 0) continue;
            expect(outcome(id).tokens).toEqual(expected(request));
          }
          const { kvBlocksUsed, prefix } = engine.metrics();
          expect(kvBlocksUsed).toBe(0);
          expect(prefix.keptBytes / 4096).toBeLessThanOrEqual(options.kvBlocks / 2);
        },
      ),
      { numRuns: 120, seed: 11 },
    );
  });
});
