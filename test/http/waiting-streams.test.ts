/** Streams that wait until another model is loaded, with real clients over a shelf of scripted models. */
import OpenAI, { APIError } from 'openai';
import { afterEach, describe, expect, it } from 'vitest';
import { samplingConfig, serverConfig } from '../../src/config.js';
import { MoestroError } from '../../src/errors.js';
import { TextGenerator } from '../../src/generate.js';
import { ModelShelf } from '../../src/http/model-shelf.js';
import { createServer } from '../../src/http/server.js';
import { ServerMetrics } from '../../src/metrics/server-metrics.js';
import { byteText, gate, listening, manualTime, saying, scriptedEngine, sseEvents } from './scripted.js';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

/** Models a and b, of which a is at hand; b loads, or does not, when `load` is told so. */
async function served(waitingMax = 8) {
  const { opened, open } = gate();
  let failure: MoestroError | null = null;
  const loads: string[] = [];
  const shelf = new ModelShelf({
    entries: ['a', 'b'].map((id) => ({ id, createdSeconds: 1 })),
    waitingMax,
    open: async ({ id }) => {
      loads.push(id);
      if (id === 'b') await opened;
      if (id === 'b' && failure !== null) throw failure;
      const { sampling: defaults } = samplingConfig({}, {});
      const generator = new TextGenerator(scriptedEngine(saying(`I am ${id}`)), byteText, { capacity: 4, defaults });
      return { generator, close: async () => {} };
    },
  });
  await shelf.start();
  const time = manualTime();
  const metrics = new ServerMetrics();
  const app = await createServer({
    config: serverConfig({ logLevel: 'silent' }, {}),
    models: shelf,
    metrics,
    every: time.every,
    readBudget: Number,
  });
  const root = await listening(app);
  closing.push(async () => {
    open();
    await app.close();
    await shelf.close();
  });
  const post = (path: string, body: object, signal?: AbortSignal) =>
    fetch(`${root}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'b', stream: true, ...body }),
      ...(signal === undefined ? {} : { signal }),
    });
  const load = (error: MoestroError | null = null): void => {
    failure = error;
    open();
  };
  return {
    post,
    load,
    loads,
    shelf,
    metrics,
    passTime: time.fire,
    client: new OpenAI({ baseURL: `${root}/v1`, apiKey: 'x', maxRetries: 0 }),
  };
}

const messages = [{ role: 'user' as const, content: 'Who?' }];
const ASKED = [
  ['/v1/chat/completions', { messages }],
  ['/v1/completions', { prompt: 'Who?' }],
  ['/v1/responses', { input: 'Who?' }],
  ['/v1/messages', { messages, max_tokens: 20 }],
] as const;

describe('a stream whose model is not loaded', () => {
  it('has its headers at once for the openai package, and its answer when the model is there', async () => {
    const { client, load, loads, passTime } = await served();
    const { data, response } = await client.chat.completions
      .create({ model: 'b', messages, stream: true })
      .withResponse();
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(loads).toEqual(['a', 'b']);
    passTime();
    load();
    let text = '';
    for await (const chunk of data) {
      expect(chunk.model).toBe('b');
      text += chunk.choices[0]?.delta.content ?? '';
    }
    expect(text).toBe('I am b');
  });

  it.each(ASKED)('is pinged by comments until then: %s', async (path, body) => {
    const { post, load, passTime } = await served();
    const response = await post(path, body);
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    for (let ping = 0; ping < 2; ++ping) {
      passTime();
      expect((await reader.read()).value).toBe(': ping\n\n');
    }
    load();
    let rest = '';
    for (let part = await reader.read(); !part.done; part = await reader.read()) rest += part.value;
    expect(rest).toMatch(/^(event|data): /);
    expect(rest).not.toContain('error":{');
  });

  it('ends with an error that the openai package raises when the model cannot be loaded', async () => {
    for (const ask of [
      (client: OpenAI) => client.chat.completions.create({ model: 'b', messages, stream: true }),
      (client: OpenAI) => client.responses.create({ model: 'b', input: 'Who?', stream: true }),
    ]) {
      const { client, load } = await served();
      const stream = await ask(client);
      load(new MoestroError('MODEL_CORRUPT', 'Cannot load b'));
      const read = async () => {
        for await (const _ of stream) expect.unreachable('there is nothing to say');
      };
      const error: unknown = await read().catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(APIError);
      expect(error).toMatchObject({ code: 'model_corrupt', message: expect.stringContaining('Cannot load b') });
    }
  });

  it.each([
    ['/v1/messages', /^event: error\ndata: \{"type":"error","error":\{.*"code":"model_corrupt".*\}\}\n\n$/],
    ['/v1/responses', /^event: error\ndata: \{"type":"error","sequence_number":0,"code":"model_corrupt".*\}\n\n$/],
    ['/v1/completions', /^data: \{"error":\{.*"code":"model_corrupt"\}\}\n\n$/],
  ])('says so in the words of its API: %s', async (path, said) => {
    const { post, load } = await served();
    const response = await post(path, ASKED.find(([one]) => one === path)![1]);
    load(new MoestroError('MODEL_CORRUPT', 'Cannot load b'));
    expect(await response.text()).toMatch(said);
  });

  it('learns of its own mistakes by an event too, as they are found when the model is there', async () => {
    const { post, load } = await served();
    const response = await post('/v1/chat/completions', { messages: [] });
    expect(response.status).toBe(200);
    load();
    expect(sseEvents(await response.text())).toEqual([
      { error: expect.objectContaining({ type: 'invalid_request_error', param: 'messages' }) },
    ]);
  });

  it('is forgotten when its client goes: the model at hand stays', async () => {
    const { post, shelf, loads, metrics, client } = await served();
    const lease = await shelf.lease('a', new AbortController().signal);
    const leaving = new AbortController();
    const response = await post('/v1/chat/completions', { messages }, leaving.signal);
    expect(response.status).toBe(200);
    leaving.abort();
    await expect.poll(() => metrics.text(null, null)).toMatch(/requests_cancelled_total\{.*\} 1/);
    lease.release();
    const answer = await client.chat.completions.create({ model: 'a', messages });
    expect(answer.choices[0]!.message.content).toBe('I am a');
    expect(loads).toEqual(['a']);
  });
});

describe('what is known at once keeps its status', () => {
  it('another model, a full queue, and answers that are no streams', async () => {
    const { post, load } = await served(1);
    const unknown = await post('/v1/chat/completions', { model: 'c', messages });
    expect([unknown.status, unknown.headers.get('content-type')]).toEqual([404, 'application/json; charset=utf-8']);
    const whole = post('/v1/chat/completions', { messages, stream: false });
    await expect
      .poll(async () => (await post('/v1/chat/completions', { model: 'a', messages })).status, { interval: 5 })
      .toBe(429);
    load(new MoestroError('MODEL_CORRUPT', 'Cannot load b'));
    expect((await whole).status).toBe(500);
  });
});
