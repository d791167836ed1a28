/** What clients do that are no npm package, byte by byte: Open WebUI, Continue, Cline, Codex, browsers (B2, B3, B4). */
import { type IncomingMessage, request } from 'node:http';
import { Readable } from 'node:stream';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bodyOf, eventsOf, FRANCE, newLong, type Served, servePocket } from './served.js';

let served: Served;
beforeAll(async () => {
  served = await servePocket();
});
afterAll(() => served.close());

interface Failure {
  error: { type: string; code: string };
}
interface Answer {
  output: { content: { type: string }[] }[];
  usage: { input_tokens: number };
}
interface Tokens {
  tokens: number[];
  max_model_len: number;
}

/** The default of --body-limit. */
const LIMIT = 32 << 20;

/** A request for one token whose JSON has that many bytes. */
function bodyOfBytes(bytes: number): string {
  const body = { ...CHAT, prompt: 'x', max_tokens: 1, metadata: '' };
  return JSON.stringify({ ...body, metadata: 'x'.repeat(bytes - JSON.stringify(body).length) });
}

/** A POST that sends its body in pieces, without a length unless the headers say one; of null it sends nothing. */
function rawRequest(url: string, headers: Record<string, number>, body: string | null) {
  return new Promise<{ readonly response: IncomingMessage; readonly text: string }>((resolve, reject) => {
    const sent = request(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers } });
    sent.once('error', reject);
    sent.once('response', (response) => {
      // From here on the server may close the connection under what is still being sent.
      sent.off('error', reject).on('error', () => undefined);
      let text = '';
      response.setEncoding('utf8').on('data', (part) => {
        text += part;
      });
      response.once('end', () => resolve({ response, text })).once('error', reject);
    });
    if (body === null) sent.flushHeaders();
    else Readable.from(body.match(/.{1,1048576}/gs)!).pipe(sent);
  });
}

const CHAT = { model: 'pocket', messages: FRANCE };

describe('requests (B2)', () => {
  it('1, 2: streams because the body says so, with headers at once', async () => {
    const controller = new AbortController();
    const response = await served.post(
      '/v1/chat/completions',
      { model: 'pocket', messages: [{ role: 'user', content: newLong() }], stream: true, return_progress: true },
      { headers: { accept: 'application/json' }, signal: controller.signal },
    );
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(response.headers.get('cache-control')).toBe('no-cache');
    expect(response.headers.get('x-accel-buffering')).toBe('no');
    // The headers came before the prompt was read to its end.
    const first = new TextDecoder().decode((await response.body!.getReader().read()).value);
    expect(first).toMatch(/^data: .*"prompt_progress":\{"total":\d+,"cache":0,"processed":\d+\}/);
    controller.abort();
    const whole = await served.post('/v1/chat/completions', CHAT, { headers: { accept: 'text/event-stream' } });
    expect(whole.headers.get('content-type')).toContain('application/json');
  });

  it('3: pings are comments, sent while there is nothing else', async () => {
    const body = { ...CHAT, messages: [{ role: 'user', content: newLong() }], max_tokens: 1, stream: true };
    const response = await served.post('/v1/chat/completions', body);
    served.passTime();
    expect(await response.text()).toMatch(/^: ping\n\ndata: /);
  });

  it('14: any key is taken when none is configured, an empty Bearer too', async () => {
    for (const authorization of ['Bearer ', 'Bearer', 'Bearer x']) {
      expect((await served.get('/v1/models', { authorization })).status).toBe(200);
    }
    expect((await served.get('/v1/models', { 'x-api-key': 'x' })).status).toBe(200);
  });

  it('15: answers a preflight with 204 and every header that was asked for', async () => {
    const asked = 'authorization,content-type,x-stainless-lang,x-api-key,anthropic-version,anthropic-beta';
    const response = await fetch(`${served.baseURL}/messages`, {
      method: 'OPTIONS',
      headers: {
        origin: 'http://localhost:3000',
        'access-control-request-method': 'POST',
        'access-control-request-headers': asked,
      },
    });
    expect(response.status).toBe(204);
    expect(response.headers.get('access-control-allow-headers')).toBe(asked);
  });

  it('16: each path with and without /v1, and with a slash at its end; the others are JSON errors', async () => {
    for (const path of ['/models', '/health', '/health/live', '/health/ready', '/metrics']) {
      for (const form of [path, `/v1${path}`, `/v1${path}/`]) {
        const response = await served.get(form);
        await response.arrayBuffer();
        expect([form, response.status]).toEqual([form, 200]);
      }
    }
    for (const [path, body] of [
      ['/chat/completions', { ...CHAT, max_tokens: 1 }],
      ['/completions', { prompt: 'x', max_tokens: 1 }],
      ['/responses', { input: 'x', max_output_tokens: 1 }],
      ['/messages', { ...CHAT, max_tokens: 1 }],
      ['/messages/count_tokens', CHAT],
      ['/embeddings', { input: 'x' }],
      ['/tokenize', { content: 'x' }],
      ['/detokenize', { tokens: [5] }],
    ] as const) {
      for (const form of [path, `/v1${path}`, `/v1${path}/`]) {
        const response = await served.post(form, body);
        await response.arrayBuffer();
        expect([form, response.status]).toEqual([form, 200]);
      }
      const wrong = await served.get(path);
      expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST']);
      expect(await wrong.json()).toMatchObject({ error: { code: 'method_not_allowed', param: null } });
    }
    const missing = await served.post('/v1/rerank', {});
    expect([missing.status, await missing.json()]).toMatchObject([404, { error: { type: 'not_found_error' } }]);
  });

  it('17: takes a body of 32 MiB to the byte, and what is no JSON with 400', async () => {
    const large = await served.post('/v1/chat/completions', null, { body: bodyOfBytes(LIMIT) });
    expect([large.status, await large.json()]).toMatchObject([200, { object: 'chat.completion' }]);
    const broken = await served.post('/v1/chat/completions', null, { body: '{"messages":' });
    expect([broken.status, (await bodyOf<Failure>(broken)).error.type]).toEqual([400, 'invalid_request_error']);
  });

  const tooLarge = (found: string) => ({
    type: 'invalid_request_error',
    code: 'body_too_large',
    param: null,
    message: `Cannot read the request body: found ${found}, needed at most the limit of ${LIMIT} bytes`,
  });

  it('17: answers a byte more with 413 as JSON, which clients read though they are still sending', async () => {
    for (const path of ['/v1/chat/completions', '/v1/completions', '/v1/responses', '/v1/embeddings', '/tokenize']) {
      const refused = await served.post(path, null, { body: bodyOfBytes(LIMIT + 1) });
      expect([path, refused.status, refused.headers.get('content-type')]).toEqual([
        path,
        413,
        'application/json; charset=utf-8',
      ]);
      expect((await bodyOf<Failure>(refused)).error).toEqual(tooLarge(`${LIMIT + 1} bytes`));
    }
    const anthropic = await served.post('/v1/messages', null, { body: bodyOfBytes(LIMIT + 1) });
    expect([anthropic.status, await anthropic.json()]).toMatchObject([
      413,
      { type: 'error', error: { type: 'request_too_large' } },
    ]);
    // The connection was not good for more, and the next request has one.
    expect((await served.post('/v1/completions', { prompt: 'x', max_tokens: 1 })).status).toBe(200);
  });

  it('17: refuses a length that is too large before anything is sent', async () => {
    const { response, text } = await rawRequest(`${served.root}/v1/completions`, { 'content-length': LIMIT + 1 }, null);
    expect([response.statusCode, response.headers.connection]).toEqual([413, 'close']);
    expect(JSON.parse(text).error).toEqual(tooLarge(`${LIMIT + 1} bytes`));
  });

  it('17: counts a body that does not tell its length', async () => {
    const { response, text } = await rawRequest(`${served.root}/v1/completions`, {}, bodyOfBytes(LIMIT + (1 << 20)));
    expect([response.statusCode, response.headers.connection]).toEqual([413, 'close']);
    expect(JSON.parse(text).error).toEqual(tooLarge('a larger one'));
    const fits = await rawRequest(`${served.root}/v1/completions`, {}, bodyOfBytes(LIMIT));
    expect([fits.response.statusCode, JSON.parse(fits.text).object]).toEqual([200, 'text_completion']);
  });

  it('17: is an error with its status for the openai package', async () => {
    const client = new OpenAI({ baseURL: served.baseURL, apiKey: 'x', maxRetries: 0 });
    const content = 'x'.repeat(LIMIT);
    const asked = client.chat.completions.create({ model: 'pocket', messages: [{ role: 'user', content }] });
    await expect(asked).rejects.toMatchObject({ status: 413, code: 'body_too_large', type: 'invalid_request_error' });
  });
});

describe('answers (B3)', () => {
  it('503 with retry-after while the model loads; live is told apart from ready', async () => {
    const loading = await servePocket({}, { isLoading: true });
    try {
      const response = await loading.post('/v1/chat/completions', CHAT);
      expect([response.status, response.headers.get('retry-after')]).toEqual([503, '2']);
      expect((await bodyOf<Failure>(response)).error).toMatchObject({
        type: 'unavailable_error',
        code: 'model_loading',
      });
      expect((await loading.get('/health/live')).status).toBe(200);
      expect((await loading.get('/health/ready')).status).toBe(503);
    } finally {
      await loading.close();
    }
  });

  it('responses: every event has its name, an item id, an index; AI SDK and Codex need them', async () => {
    const response = await served.post('/v1/responses', { model: 'pocket', input: FRANCE, stream: true });
    const events = await eventsOf(response);
    for (const { name, data } of events) expect(name).toBe((data as { type: string }).type);
    const deltas = events.filter(({ name }) => name === 'response.output_text.delta');
    for (const { data } of deltas) {
      expect(data).toMatchObject({ item_id: expect.stringMatching(/^msg_/), output_index: 0, content_index: 0 });
    }
    expect(events.at(-1)!.data).toMatchObject({
      response: {
        status: 'completed',
        created_at: expect.any(Number),
        output: [{ type: 'message', role: 'assistant' }],
      },
    });
  });

  it('responses: takes its own items back as input', async () => {
    const first = await bodyOf<Answer>(served.post('/v1/responses', { input: FRANCE, instructions: 'x' }));
    const input = [
      ...FRANCE,
      { type: 'reasoning', id: 'rs_1', summary: [{ type: 'summary_text', text: 'Hm.' }] },
      ...first.output,
      { type: 'function_call', call_id: 'c1', name: 'look', arguments: '{}' },
      { type: 'function_call_output', call_id: 'c1', output: [{ type: 'input_text', text: 'found' }] },
      { role: 'user', content: [{ type: 'input_text', text: 'And of Peru?' }] },
    ];
    const second = await served.post('/v1/responses', { input, store: true, truncation: 'auto', include: [] });
    expect([second.status, (await bodyOf<Answer>(second)).output[0]?.content[0]?.type]).toEqual([200, 'output_text']);
    const image = [{ role: 'user', content: [{ type: 'input_image', image_url: 'data:,' }] }];
    const refused = await served.post('/v1/responses', { input: image });
    expect([refused.status, (await bodyOf<Failure>(refused)).error.code]).toEqual([400, 'unsupported_content']);
  });

  it('responses: truncation auto leaves the oldest turns out, disabled refuses them', async () => {
    const turns = Array.from({ length: 40 }, () => [
      { role: 'user', content: 'What is the capital of France? '.repeat(12) },
      { role: 'assistant', content: 'Paris.' },
    ]);
    const input = [...turns.flat(), ...FRANCE];
    const body = { input, instructions: 'Answer.', max_output_tokens: 12 };
    for (const truncation of ['disabled', null, undefined]) {
      const refused = await served.post('/v1/responses', { ...body, truncation });
      expect(await refused.json()).toMatchObject({ error: { code: 'context_length_exceeded', param: 'input' } });
    }
    const taken = await bodyOf<Answer>(served.post('/v1/responses', { ...body, truncation: 'auto' }));
    expect(taken).toMatchObject({ truncation: 'auto', output: [{ type: 'message' }] });
    const { max_model_len: context } = await bodyOf<Tokens>(served.post('/tokenize', { content: '' }));
    expect(taken.usage.input_tokens).toBeLessThanOrEqual(context - 12);
    expect(taken.usage.input_tokens).toBeGreaterThan(context / 2);
    const short = await bodyOf<Answer>(served.post('/v1/responses', { input: FRANCE, truncation: 'auto' }));
    const plain = await bodyOf<Answer>(served.post('/v1/responses', { input: FRANCE }));
    expect([short.usage.input_tokens, plain]).toMatchObject([plain.usage.input_tokens, { truncation: 'disabled' }]);
    for (const truncation of ['oldest', 1]) {
      const refused = await served.post('/v1/responses', { ...body, truncation });
      expect([refused.status, await refused.json()]).toMatchObject([400, { error: { param: 'truncation' } }]);
    }
  });

  it('responses and messages tell the progress of a prompt in events that clients know', async () => {
    const input = newLong();
    const asked = { input, stream: true, max_output_tokens: 1 };
    const told = await eventsOf(await served.post('/v1/responses', { ...asked, return_progress: true }));
    const steps = told.filter(({ data }) => 'prompt_progress' in (data as object));
    expect(steps.length).toBeGreaterThan(20);
    expect(steps.at(-1)).toMatchObject({ name: 'response.in_progress', data: { response: { status: 'in_progress' } } });
    const numbers = told.map(({ data }) => (data as { sequence_number: number }).sequence_number);
    expect(numbers).toEqual(numbers.map((_, i) => i));
    const silent = await eventsOf(await served.post('/v1/responses', asked));
    expect(silent.some(({ data }) => 'prompt_progress' in (data as object))).toBe(false);

    const messages = [{ role: 'user', content: newLong() }];
    const body = { messages, max_tokens: 1, stream: true, return_progress: true };
    const pings = (await eventsOf(await served.post('/v1/messages', body))).filter(({ name }) => name === 'ping');
    const last = pings.at(-1)!.data as { prompt_progress: { total: number; processed: number } };
    expect(pings.length).toBeGreaterThan(20);
    expect(last.prompt_progress.processed).toBe(last.prompt_progress.total);
  });

  it('tokenize and detokenize are each the other back', async () => {
    const content = 'Grüße <|im_start|> ☕';
    const { tokens } = await bodyOf<Tokens>(served.post('/tokenize', { content }));
    expect(await (await served.post('/detokenize', { tokens })).json()).toEqual({ content });
    const plain = await bodyOf<Tokens>(served.post('/tokenize', { content, parse_special: false }));
    expect(plain.tokens.length).toBeGreaterThan(tokens.length);
  });
});

describe('clients (B4)', () => {
  it('Open WebUI: models under its base, usage forced on a stream, lines below 4 MB', async () => {
    const list = await bodyOf<{ data: { id: string }[] }>(served.get('/v1/models'));
    expect(list.data.map(({ id }) => id)).toEqual(['pocket']);
    const body = { ...CHAT, stream: true, stream_options: { include_usage: true } };
    const response = await served.post('/v1/chat/completions', body, { headers: { authorization: 'Bearer ' } });
    expect([response.status, response.headers.get('content-type')]).toEqual([
      200,
      expect.stringContaining('text/event-stream'),
    ]);
    const events = await eventsOf(response);
    expect(events.at(-1)!.data).toBe('data: [DONE]');
    expect(events.at(-2)!.data).toMatchObject({
      choices: [],
      usage: { prompt_tokens_details: { cached_tokens: expect.any(Number) } },
    });
  });

  it('Continue: both kinds of keys at once', async () => {
    const locked = await servePocket({}, { apiKeys: ['secret'] });
    try {
      const both = { authorization: 'Bearer secret', 'x-api-key': 'secret' };
      expect((await locked.get('/v1/models', both)).status).toBe(200);
      expect((await locked.get('/v1/models', { 'x-api-key': 'secret' })).status).toBe(200);
      expect((await locked.get('/v1/models', { authorization: 'Bearer ' })).status).toBe(401);
    } finally {
      await locked.close();
    }
  });
});
