/** ai 6.0.326 with @ai-sdk/openai-compatible 2.0.91 and @ai-sdk/openai 3.0.141 against the real server (B1, B3, B4). */
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, embedMany, generateText, type LanguageModel, streamText } from 'ai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FRANCE, LONG, newLong, POLLED, PREFILLED, type Served, servePocket } from './served.js';

let served: Served;
let models: Record<'compatible' | 'chat' | 'responses', LanguageModel>;
beforeAll(async () => {
  served = await servePocket();
  const { baseURL } = served;
  const compatible = createOpenAICompatible({ name: 'moestro', baseURL, apiKey: 'any', includeUsage: true });
  const openai = createOpenAI({ baseURL, apiKey: 'any' });
  models = { compatible: compatible('pocket'), chat: openai.chat('pocket'), responses: openai('pocket') };
});
afterAll(() => served.close());

const ASK = { prompt: FRANCE[0]!.content, temperature: 0, maxRetries: 0 };

describe.each(['compatible', 'chat', 'responses'] as const)('AI SDK, provider %s', (provider) => {
  it('generates a text with finish reason and usage', async () => {
    const { text, finishReason, usage, response } = await generateText({
      model: models[provider],
      ...ASK,
      system: 'Be short.',
    });
    expect(text).toContain('Paris');
    expect(finishReason).toBe('stop');
    expect(usage.inputTokens).toBeGreaterThan(5);
    expect(usage.outputTokens).toBeGreaterThan(0);
    expect(response.modelId).toBe('pocket');
  });

  it('streams the same text with finish reason and usage', async () => {
    const result = streamText({ model: models[provider], ...ASK });
    const parts = [];
    for await (const part of result.fullStream) parts.push(part);
    expect(parts.filter(({ type }) => type === 'error')).toEqual([]);
    expect(await result.text).toContain('Paris');
    expect(await result.finishReason).toBe('stop');
    expect((await result.usage).outputTokens).toBeGreaterThan(0);
  });

  it('passes over pings while a long prompt is prefilled, and says when it was cut off', async () => {
    const result = streamText({ model: models[provider], ...ASK, prompt: newLong(), maxOutputTokens: 2 });
    let count = 0;
    for await (const part of result.fullStream) {
      served.passTime();
      expect(part.type).not.toBe('error');
      count++;
    }
    expect(count).toBeGreaterThan(2);
    expect(await result.finishReason).toBe('length');
  });

  it('reads errors with their code', async () => {
    const failure = await generateText({ model: models[provider], ...ASK, prompt: LONG.repeat(4) }).catch(
      (error) => error,
    );
    expect(failure).toBeInstanceOf(APICallError);
    expect(failure.statusCode).toBe(400);
    expect(failure.isRetryable).toBe(false);
    expect(JSON.parse(failure.responseBody).error).toMatchObject({ code: 'context_length_exceeded' });
  });

  it('ends the work when its signal is aborted', async () => {
    const cancelled = await served.metric('moestro_sequences_cancelled_total');
    const before = await served.metric(PREFILLED);
    const controller = new AbortController();
    const result = streamText({ model: models[provider], ...ASK, prompt: newLong(), abortSignal: controller.signal });
    const types: string[] = [];
    const read = (async () => {
      for await (const { type } of result.fullStream) types.push(type);
    })();
    await expect.poll(() => served.metric(PREFILLED), POLLED).toBeGreaterThan(before);
    controller.abort();
    await read;
    expect(types.at(-1)).toBe('abort');
    await expect.poll(() => served.metric('moestro_sequences_open'), POLLED).toBe(0);
    expect(await served.metric('moestro_sequences_cancelled_total')).toBe(cancelled + 1);
  });
});

describe('AI SDK, the rest', () => {
  it('completes a text without a template', async () => {
    const provider = createOpenAICompatible({ name: 'moestro', baseURL: served.baseURL });
    const { text } = await generateText({ model: provider.completionModel('pocket'), ...ASK, maxOutputTokens: 4 });
    expect(text).not.toBe('');
  });

  it('embeds texts as floats, by both providers alike', async () => {
    const { baseURL } = served;
    const compatible = createOpenAICompatible({ name: 'moestro', baseURL }).embeddingModel('pocket');
    const openai = createOpenAI({ baseURL, apiKey: 'any' }).embedding('pocket');
    const values = ['Paris', 'London'];
    const first = await embedMany({ model: compatible, values });
    const second = await embedMany({ model: openai, values });
    expect(first.embeddings.map(({ length }) => length)).toEqual([256, 256]);
    expect(second.embeddings).toEqual(first.embeddings);
    expect(first.usage.tokens).toBeGreaterThan(1);
  });
});
