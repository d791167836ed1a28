/** The library over a scripted engine. */
import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { EngineConfig, Sampling } from '../src/engine/types.js';
import { TextGenerator } from '../src/generate.js';
import { loadModel } from '../src/index.js';
import { byteText, METRICS, type ScriptedEngine, saying, scriptedEngine } from './http/scripted.js';

let engine: ScriptedEngine;
let opened: EngineConfig[] = [];
let closed = 0;

vi.mock('../src/open-model.js', () => ({
  openModel: async (config: EngineConfig, defaults: Sampling) => {
    opened.push(config);
    return {
      generator: new TextGenerator(engine, byteText, { capacity: 4, defaults }),
      close: async () => void closed++,
    };
  },
}));

beforeEach(() => {
  engine = scriptedEngine(saying(({ promptIds }) => `re ${Buffer.from(promptIds).toString().trim()}`));
  opened = [];
  closed = 0;
});

describe('loadModel()', () => {
  it('checks its options as flags are checked', async () => {
    await loadModel('m.moe', { budget: '1GiB', level: 4, io: 'pread' });
    expect(opened[0]).toMatchObject({ modelPath: 'm.moe', budgetBytes: 2 ** 30, level: 4, io: { backend: 'pread' } });
    await expect(loadModel('m.moe', { budget: '1G' })).rejects.toMatchObject({ code: 'INVALID_CONFIG' });
  });

  it('answers a question or a conversation in deltas', async () => {
    const model = await loadModel('m.moe');
    const texts: string[] = [];
    for await (const { text } of model.chat('hi')) texts.push(text);
    expect(texts.length).toBeGreaterThan(5);
    expect(texts.join('')).toBe('re user: hi');
    const conversation = [
      { role: 'system', content: 'be' },
      { role: 'user', content: 'hi' },
    ];
    expect(await model.chat(conversation).text()).toBe('re system: be\nuser: hi');
  });

  it('completes a text, and tells how the answer ended and what it took', async () => {
    const model = await loadModel('m.moe');
    expect(await model.complete('abc', { maxTokens: 4 }).result()).toMatchObject({
      text: 're a',
      finishReason: 'length',
      usage: { promptTokens: 3, completionTokens: 4 },
    });
    expect((await model.complete('abc', { stop: 'b' }).result()).text).toBe('re a');
  });

  it('passes sampling on over the defaults', async () => {
    const model = await loadModel('m.moe');
    await model.complete('abc', { temperature: 0, seed: 3, mode: 'routed' }).text();
    expect(engine.requests[0]).toMatchObject({
      precision: { mode: 'routed' },
      sampling: { temperature: 0, seed: 3, topK: 40 },
    });
    expect(Object.keys(engine.requests[0]!.sampling).sort()).toEqual(
      Object.keys((await import('../src/engine/types.js')).GREEDY).sort(),
    );
  });

  it('passes on how an answer may end, and whether it has to do with known prefixes', async () => {
    const model = await loadModel('m.moe');
    await model.chat('hi', { prefixCache: false, minTokens: 4, stopTokenIds: [7] }).text();
    await model.complete('hi').text();
    expect(engine.requests).toMatchObject([
      { usesPrefixes: false, minTokens: 4, stopTokenIds: [256, 7] },
      { usesPrefixes: true, minTokens: 0, stopTokenIds: [256] },
    ]);
    await expect(model.complete('hi', { stopTokenIds: [260] }).text()).rejects.toMatchObject({
      code: 'INVALID_REQUEST',
    });
  });

  it("ends the engine's work when the reader leaves, and throws when its signal is aborted", async () => {
    const model = await loadModel('m.moe');
    for await (const _ of model.chat('hi')) break;
    expect(engine.cancelled).toBe(1);
    await expect(model.chat('hi', { signal: AbortSignal.abort() }).text()).rejects.toThrow();
  });

  it('refuses to read one answer twice', async () => {
    const model = await loadModel('m.moe');
    const answer = model.chat('hi');
    await answer.text();
    await expect(answer.text()).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('closes the model at the end of an `await using` block', async () => {
    {
      await using model = await loadModel('m.moe');
      expect(await model.metrics()).toEqual(METRICS);
      expect(model.info.modelName).toBe('scripted');
      expect(closed).toBe(0);
    }
    expect(closed).toBe(1);
  });
});
