/** @langchain/openai 1.5.8 against the real server (B1, B2, B4). */
import { AIMessageChunk, HumanMessage, SystemMessage, type UsageMetadata } from '@langchain/core/messages';
import { ChatOpenAI, OpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FRANCE, LONG, type Served, servePocket } from './served.js';

let served: Served;
beforeAll(async () => {
  served = await servePocket();
});
afterAll(() => served.close());

const QUESTION = FRANCE[0]!.content;
/** The types of 1.4.0 say `never` for the usage of a message without a structure of its own. */
const usageOf = (message: { usage_metadata?: unknown }) => message.usage_metadata as UsageMetadata | undefined;
const settings = () => ({
  model: 'pocket',
  apiKey: 'any',
  maxRetries: 0,
  temperature: 0,
  configuration: { baseURL: served.baseURL },
});

describe('LangChain', () => {
  it('invokes a chat model and reads its usage', async () => {
    const answer = await new ChatOpenAI(settings()).invoke([
      new SystemMessage('Be short.'),
      new HumanMessage(QUESTION),
    ]);
    expect(answer.text).toContain('Paris');
    expect(usageOf(answer)?.input_tokens).toBeGreaterThan(5);
    expect(answer.response_metadata).toMatchObject({ finish_reason: 'stop' });
  });

  it('streams, with the usage that it always asks for', async () => {
    let whole: AIMessageChunk | undefined;
    for await (const chunk of await new ChatOpenAI(settings()).stream(QUESTION)) whole = whole?.concat(chunk) ?? chunk;
    expect(whole).toBeInstanceOf(AIMessageChunk);
    expect(whole!.text).toContain('Paris');
    expect(usageOf(whole!)?.output_tokens).toBeGreaterThan(0);
    expect(whole!.response_metadata).toMatchObject({ finish_reason: 'stop' });
  });

  it('answers by the Responses API too, whole and streamed', async () => {
    const model = new ChatOpenAI({ ...settings(), useResponsesApi: true });
    expect((await model.invoke(QUESTION)).text).toContain('Paris');
    let text = '';
    for await (const chunk of await model.stream(QUESTION)) text += chunk.text;
    expect(text).toContain('Paris');
  });

  it('takes stop texts, n and logprobs', async () => {
    const model = new ChatOpenAI({ ...settings(), logprobs: true, topLogprobs: 1 });
    const answer = await model.invoke(QUESTION, { stop: ['ris'] });
    expect(answer.text).not.toContain('ris');
    const { content } = answer.response_metadata.logprobs as { content: unknown[] };
    expect(content.length).toBeGreaterThan(0);
    const several = await new ChatOpenAI({ ...settings(), n: 2 }).generate([[new HumanMessage(QUESTION)]]);
    expect(several.generations[0]!.length).toBe(2);
  });

  it('completes texts', async () => {
    expect(await new OpenAI({ ...settings(), maxTokens: 4 }).invoke('The capital of France is')).not.toBe('');
  });

  it('embeds in batches', async () => {
    const embeddings = new OpenAIEmbeddings({ ...settings(), batchSize: 3 });
    const texts = ['Paris', 'London', 'Rome', 'Oslo', 'Paris'];
    const vectors = await embeddings.embedDocuments(texts);
    expect(vectors.map(({ length }) => length)).toEqual([256, 256, 256, 256, 256]);
    expect(vectors[4]).toEqual(vectors[0]);
    expect(vectors[1]).not.toEqual(vectors[0]);
    expect(await embeddings.embedQuery('Paris')).toEqual(vectors[0]);
  });

  it('raises an error with its code', async () => {
    const failure = new ChatOpenAI(settings()).invoke(LONG.repeat(4));
    await expect(failure).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded' });
  });
});
