/** What a prompt is read for besides an answer: one vector for it, and the logprobs of its own tokens. */
import { describe, expect, it } from 'vitest';
import type { EngineEvent, Pooling, PromptToken } from '../../src/engine/types.js';
import { fakeEngine, toyRequest } from '../helpers/fake-engine.js';

const PROMPT = toyRequest(3, 40, 1).promptIds;

function embedded(pooling: Pooling, options: Parameters<typeof fakeEngine>[0], others = 0): Float32Array {
  const { engine, outcome, runAll } = fakeEngine(options);
  engine.embed(1, PROMPT, { pooling });
  for (let other = 0; other < others; ++other) engine.generate(2 + other, toyRequest(other, 30, 20));
  runAll();
  expect(engine.metrics()).toMatchObject({ sequencesOpen: 0, kvBlocksUsed: 0 });
  return outcome(1).logits!;
}

const promptTokens = (events: readonly EngineEvent[]): PromptToken[] =>
  events.flatMap((event) => (event.kind === 'prompt' ? event.tokens : []));

describe('Engine.embed()', () => {
  it('gives the same vector however the text is cut into steps and whoever runs beside it', () => {
    for (const pooling of ['mean', 'last'] as const) {
      const whole = embedded(pooling, { chunkTokens: 64 });
      expect(whole.length).toBe(64);
      expect(new Set(whole).size).toBeGreaterThan(32);
      expect(embedded(pooling, { chunkTokens: 7 })).toEqual(whole);
      expect(embedded(pooling, { chunkTokens: 16 }, 3)).toEqual(whole);
    }
    expect(embedded('mean', {})).not.toEqual(embedded('last', {}));
  });

  it('adds no token twice when its blocks were taken away meanwhile', () => {
    const { engine, outcome, runAll } = fakeEngine({ kvBlocks: 6, chunkTokens: 4, maxSequences: 2 });
    // The first one grows until the second has to give its blocks back.
    engine.generate(2, toyRequest(1, 30, 40));
    engine.embed(1, PROMPT, { pooling: 'mean' });
    runAll();
    expect(outcome(1).logits).toEqual(embedded('mean', { chunkTokens: 64 }));
  });

  it('ends when it is aborted', () => {
    const { engine, outcome } = fakeEngine({ chunkTokens: 4 });
    engine.embed(1, PROMPT, { pooling: 'mean' });
    engine.step();
    engine.abort(1);
    expect([engine.hasWork, engine.metrics().requestsCancelled, outcome(1).logits]).toEqual([false, 1, null]);
  });
});

describe('Engine.generate() with promptLogprobs', () => {
  const run = (options: Parameters<typeof fakeEngine>[0], top: number) => {
    const { engine, outcome, runAll } = fakeEngine(options);
    engine.generate(1, { ...toyRequest(3, 40, 2), promptLogprobs: top });
    runAll();
    return outcome(1);
  };

  it("reports each of the prompt's tokens but the first, once, whatever the steps", () => {
    const { events, tokens } = run({ chunkTokens: 64 }, 2);
    const reported = promptTokens(events);
    expect(reported.map(({ tokenId }) => tokenId)).toEqual(PROMPT.slice(1));
    for (const { logprob, topLogprobs } of reported) {
      expect(logprob).toBeLessThanOrEqual(topLogprobs[0]!.logprob);
      expect(topLogprobs.length).toBe(2);
    }
    const cut = run({ chunkTokens: 7 }, 2);
    expect([promptTokens(cut.events), cut.tokens]).toEqual([reported, tokens]);
  });

  it('agrees with the logits of an evaluation', () => {
    const { engine, outcome, runAll } = fakeEngine({});
    engine.evaluate(1, PROMPT);
    runAll();
    const logits = outcome(1).logits!;
    const width = logits.length / PROMPT.length;
    const reported = promptTokens(run({}, 0).events);
    for (const [at, { tokenId, logprob }] of reported.entries()) {
      const row = [...logits.subarray(at * width, (at + 1) * width)];
      const logZ = Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0));
      expect(logprob).toBeCloseTo(row[tokenId]! - logZ, 9);
    }
  });

  it('reports the prompt of a request that wants no answer', () => {
    const { engine, outcome, runAll } = fakeEngine({});
    engine.generate(1, { ...toyRequest(3, 40, 0), promptLogprobs: 0 });
    runAll();
    const { events, tokens } = outcome(1);
    expect([promptTokens(events).length, tokens.length, events.at(-1)?.kind]).toEqual([39, 0, 'finish']);
  });
});
