/** openai 6.49.0 against the real server; names say the rows of the contract: B1 streams, B2 requests, B3 answers. */
import OpenAI, { APIError, AuthenticationError, BadRequestError, NotFoundError, RateLimitError } from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FRANCE, LONG, newLong, POLLED, PREFILLED, type Served, servePocket } from './served.js';

let served: Served;
let client: OpenAI;
beforeAll(async () => {
  served = await servePocket();
  client = new OpenAI({ baseURL: served.baseURL, apiKey: 'any', maxRetries: 0 });
});
afterAll(() => served.close());

const CHAT = { model: 'pocket', messages: FRANCE };

describe('chat streams (B1)', () => {
  it('reads raw chunks: role first, one id, text, finish_reason, usage with no choices, [DONE]', async () => {
    const stream = await client.chat.completions.create({
      ...CHAT,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    expect(new Set(chunks.map(({ id, created, model, object }) => [id, created, model, object].join())).size).toBe(1);
    expect(chunks[0]).toMatchObject({ object: 'chat.completion.chunk', choices: [{ delta: { role: 'assistant' } }] });
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toContain('Paris');
    expect(chunks.at(-2)!.choices[0]).toMatchObject({ delta: {}, finish_reason: 'stop' });
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: expect.any(Number) } });
  });

  it('reads the stream through its helper: role, finish_reason and usage are there', async () => {
    const helper = client.chat.completions.stream({ ...CHAT, stream_options: { include_usage: true } });
    const final = await helper.finalChatCompletion();
    expect(final.choices[0]).toMatchObject({ finish_reason: 'stop', message: { role: 'assistant' } });
    expect(final.choices[0]!.message.content).toContain('Paris');
    expect((await helper.totalUsage()).total_tokens).toBeGreaterThan(10);
  });

  it('passes over unknown fields, prompt_progress chunks and pings', async () => {
    const body = {
      ...CHAT,
      messages: [{ role: 'user' as const, content: LONG }],
      max_tokens: 2,
      return_progress: true,
    };
    const stream = await client.chat.completions.create({ ...body, stream: true });
    const progress: unknown[] = [];
    let text = '';
    for await (const chunk of stream) {
      served.passTime();
      if ('prompt_progress' in chunk) progress.push(chunk.prompt_progress);
      text += chunk.choices[0]?.delta.content ?? '';
    }
    expect(progress.length).toBeGreaterThan(20);
    expect(text).not.toBe('');
  });

  it('neither takes nor leaves a known prefix with cache_prompt false (B2.13)', async () => {
    const messages = [{ role: 'user' as const, content: newLong() }];
    const body = { ...CHAT, messages, max_tokens: 2 };
    const ask = async (more: object) => {
      const asked = { ...body, ...more, stream: true as const, stream_options: { include_usage: true } };
      const stream = await client.chat.completions.create(asked);
      const known: unknown[] = [];
      let text = '';
      let cached: number | undefined;
      for await (const chunk of stream) {
        if ('prompt_progress' in chunk) known.push((chunk.prompt_progress as { cache: number }).cache);
        text += chunk.choices[0]?.delta.content ?? '';
        cached = chunk.usage?.prompt_tokens_details?.cached_tokens ?? cached;
      }
      return { text, cached, known: [...new Set(known)] };
    };
    // What templates begin with is known already; what is new of the prompt is not.
    const first = await ask({ cache_prompt: false, return_progress: true });
    const second = await ask({});
    const third = await ask({ return_progress: true });
    const fourth = await ask({ cache_prompt: false, return_progress: true });
    expect([first.cached, first.known]).toEqual([0, [0]]);
    expect(second.cached).toBeLessThan(100);
    expect(third.cached).toBeGreaterThan(1000);
    expect(third.known).toEqual([third.cached]);
    expect([fourth.cached, fourth.known]).toEqual([0, [0]]);
    expect(new Set([first, second, third, fourth].map(({ text }) => text)).size).toBe(1);
  });

  it('has no usage chunk unless it is asked for (B2.11)', async () => {
    for await (const chunk of await client.chat.completions.create({ ...CHAT, stream: true })) {
      expect(chunk.usage ?? null).toBeNull();
    }
  });

  it('reads logprobs as numbers, in the stream as in the whole answer', async () => {
    const options = { ...CHAT, logprobs: true, top_logprobs: 3 };
    const whole = await client.chat.completions.create(options);
    const entries = whole.choices[0]!.logprobs!.content!;
    for (const entry of entries) {
      expect(entry.top_logprobs.length).toBe(3);
      for (const { logprob } of [entry, ...entry.top_logprobs]) expect(logprob).toEqual(expect.any(Number));
    }
    const final = await client.chat.completions.stream(options).finalChatCompletion();
    expect(final.choices[0]!.logprobs?.content).toEqual(entries);
  });

  it('raises an error that comes mid-stream', async () => {
    const broken = await servePocket({ faultRanges: [[0, 2 ** 40]], budgetBytes: null, maxResidentExperts: 40 });
    try {
      const other = new OpenAI({ baseURL: broken.baseURL, apiKey: 'any', maxRetries: 0 });
      const read = async () => {
        for await (const _ of await other.chat.completions.create({ ...CHAT, stream: true })) expect(_).toBeDefined();
      };
      const failure = await read().catch((error) => error);
      expect(failure).toBeInstanceOf(APIError);
      expect(failure).toMatchObject({ code: 'expert_read_failed' });
      await expect(other.chat.completions.create(CHAT)).rejects.toMatchObject({
        status: 500,
        code: 'expert_read_failed',
      });
    } finally {
      await broken.close();
    }
  });
});

describe('chat requests (B2)', () => {
  it('4, 5: takes what it ignores, and null for every optional field', async () => {
    const ignored = {
      user: 'u',
      metadata: { a: 'b' },
      store: true,
      service_tier: 'auto' as const,
      prompt_cache_key: 'k',
      safety_identifier: 's',
      verbosity: 'low' as const,
      prediction: { type: 'content' as const, content: 'x' },
      modalities: ['text' as const],
      parallel_tool_calls: true,
      made_up: 1,
    };
    expect((await client.chat.completions.create({ ...CHAT, ...ignored })).choices[0]!.message.content).toContain(
      'Paris',
    );
    const nothing = { stop: null, n: null, max_tokens: null, temperature: null, logit_bias: null, logprobs: null };
    expect((await client.chat.completions.create({ ...CHAT, ...nothing })).choices[0]!.finish_reason).toBe('stop');
  });

  it('6: max_completion_tokens wins over max_tokens', async () => {
    const answer = await client.chat.completions.create({ ...CHAT, max_tokens: 9, max_completion_tokens: 1 });
    expect(answer.usage!.completion_tokens).toBe(1);
    expect(answer.choices[0]!.finish_reason).toBe('length');
  });

  it('7: takes all roles and text parts, and refuses images by code', async () => {
    const messages = [
      { role: 'developer' as const, content: 'Answer.' },
      { role: 'assistant' as const, content: [{ type: 'text' as const, text: 'Ask.' }] },
      { role: 'user' as const, content: [{ type: 'text' as const, text: FRANCE[0]!.content }] },
    ];
    expect((await client.chat.completions.create({ ...CHAT, messages })).choices[0]!.message.role).toBe('assistant');
    const image = { type: 'image_url' as const, image_url: { url: 'data:,' } };
    const failure = client.chat.completions.create({ ...CHAT, messages: [{ role: 'user', content: [image] }] });
    await expect(failure).rejects.toMatchObject({ status: 400, code: 'unsupported_content' });
  });

  it('8: stop texts end the answer and are not in it', async () => {
    for (const stop of ['ris', ['none', 'ris', 'a', 'b', 'c']]) {
      const [choice] = (await client.chat.completions.create({ ...CHAT, stop })).choices;
      expect(choice!.message.content).not.toContain('ris');
      expect(choice!.finish_reason).toBe('stop');
    }
  });

  it('9: n, seed and logit_bias', async () => {
    const drawn = { ...CHAT, n: 3, seed: 7, temperature: 2, max_tokens: 8 };
    const texts = async () =>
      (await client.chat.completions.create(drawn)).choices.map(({ message }) => message.content);
    const first = await texts();
    expect(first.length).toBe(3);
    expect(new Set(first).size).toBeGreaterThan(1);
    expect(await texts()).toEqual(first);
    const plain = await client.chat.completions.create({ ...CHAT, logprobs: true, max_tokens: 1 });
    const { tokens } = (await (
      await served.post('/tokenize', { content: plain.choices[0]!.message.content })
    ).json()) as {
      tokens: number[];
    };
    const biased = await client.chat.completions.create({ ...CHAT, max_tokens: 1, logit_bias: { [tokens[0]!]: -100 } });
    expect(biased.choices[0]!.message.content).not.toBe(plain.choices[0]!.message.content);
    await expect(client.chat.completions.create({ ...CHAT, n: 99 })).rejects.toBeInstanceOf(BadRequestError);
    await expect(client.chat.completions.create({ ...CHAT, top_logprobs: 2 })).rejects.toMatchObject({ status: 400 });
  });

  it('12: reasoning_effort and template kwargs are taken', async () => {
    const asked = { ...CHAT, reasoning_effort: 'none' as const, chat_template_kwargs: { enable_thinking: false } };
    expect((await client.chat.completions.create(asked)).choices[0]!.message.content).toContain('Paris');
  });

  it('13: plain names of llama.cpp are taken, or refused by name', async () => {
    const extras = { top_k: 5, min_p: 0.1, typical_p: 1, repeat_penalty: 1.1, mirostat: 0, cache_prompt: true };
    expect((await client.chat.completions.create({ ...CHAT, ...extras })).choices.length).toBe(1);
    const refused = { ...CHAT, mirostat: 2 };
    await expect(client.chat.completions.create(refused)).rejects.toMatchObject({ param: 'mirostat' });
  });
});

describe('answers (B3)', () => {
  it('a whole answer has the shape, a request id and its time', async () => {
    const { data, response, request_id } = await client.chat.completions.create(CHAT).withResponse();
    expect(data).toMatchObject({
      id: expect.stringMatching(/^chatcmpl-/),
      object: 'chat.completion',
      model: 'pocket',
      choices: [{ index: 0, message: { role: 'assistant', refusal: null }, logprobs: null, finish_reason: 'stop' }],
      usage: {
        prompt_tokens_details: { cached_tokens: expect.any(Number) },
        completion_tokens_details: { reasoning_tokens: 0 },
      },
    });
    expect(request_id).toMatch(/^req_/);
    expect(response.headers.get('openai-processing-ms')).toMatch(/^\d+$/);
  });

  it('completions: text, ids, lists, echo with logprobs, best_of, suffix by name', async () => {
    const prompt = 'The capital of France is';
    const { tokens } = (await (await served.post('/tokenize', { content: prompt })).json()) as { tokens: number[] };
    const text = async (given: string | string[] | number[] | number[][]) =>
      (await client.completions.create({ model: 'pocket', prompt: given, max_tokens: 4 })).choices.map(
        (one) => one.text,
      );
    const [whole] = await text(prompt);
    expect(await text(tokens)).toEqual([whole]);
    expect(await text([prompt, prompt])).toEqual([whole, whole]);
    expect(await text([tokens, tokens])).toEqual([whole, whole]);
    const echo = await client.completions.create({ model: 'pocket', prompt, max_tokens: 2, echo: true, logprobs: 2 });
    const { logprobs } = echo.choices[0]!;
    expect(echo).toMatchObject({ object: 'text_completion' });
    expect(echo.choices[0]!.text.startsWith(prompt)).toBe(true);
    expect(logprobs!.token_logprobs!.length).toBe(tokens.length + 2);
    expect([logprobs!.token_logprobs![0], logprobs!.top_logprobs![0], logprobs!.text_offset![0]]).toEqual([
      null,
      null,
      0,
    ]);
    expect(logprobs!.text_offset!.at(-1)).toBeGreaterThanOrEqual(prompt.length);
    const best = await client.completions.create({
      model: 'pocket',
      prompt,
      best_of: 3,
      n: 1,
      temperature: 1,
      seed: 1,
    });
    expect(best.choices.length).toBe(1);
    const suffix = client.completions.create({ model: 'pocket', prompt, suffix: '.' });
    await expect(suffix).rejects.toMatchObject({ code: 'unsupported_parameter', param: 'suffix' });
  });

  it('echoed logprobs are those of the answer that the prompt came from', async () => {
    const prompt = 'The capital of France is';
    const made = await client.completions.create({ model: 'pocket', prompt, max_tokens: 4, logprobs: 0 });
    const again = await client.completions.create({
      model: 'pocket',
      prompt: prompt + made.choices[0]!.text,
      max_tokens: 0,
      echo: true,
      logprobs: 0,
    });
    const wanted = made.choices[0]!.logprobs!.token_logprobs!;
    expect(again.choices[0]!.logprobs!.token_logprobs!.slice(-wanted.length)).toEqual(wanted);
  });

  it('embeddings: base64, which it asks for by default, decodes to the floats', async () => {
    const input = ['Paris', 'London', FRANCE[0]!.content];
    const packed = await client.embeddings.create({ model: 'pocket', input });
    const plain = await client.embeddings.create({ model: 'pocket', input, encoding_format: 'float' });
    expect(packed.data[0]!.embedding.length).toBe(256);
    for (const [i, { embedding, index }] of packed.data.entries()) {
      expect([index, embedding.length]).toEqual([i, plain.data[i]!.embedding.length]);
      expect(Math.hypot(...embedding)).toBeCloseTo(1, 5);
      for (const [at, value] of embedding.entries()) expect(value).toBe(plain.data[i]!.embedding[at]);
    }
    const alone = await client.embeddings.create({ model: 'pocket', input: 'London' });
    expect([...alone.data[0]!.embedding]).toEqual([...packed.data[1]!.embedding]);
    expect(packed.usage.prompt_tokens).toBeGreaterThan(input.length);
    const short = await client.embeddings.create({ model: 'pocket', input: 'London', dimensions: 64 });
    expect([short.data[0]!.embedding.length, Math.hypot(...short.data[0]!.embedding)]).toEqual([
      64,
      expect.closeTo(1, 5),
    ]);
  });

  it('models: the list is iterated, an unknown id is 404, any id is answered', async () => {
    const ids: string[] = [];
    for await (const { id } of client.models.list()) ids.push(id);
    expect(ids).toEqual(['pocket']);
    const failure = await client.models.retrieve('other').catch((error) => error);
    expect(failure).toBeInstanceOf(NotFoundError);
    expect(failure.code).toBe('model_not_found');
    expect((await client.chat.completions.create({ ...CHAT, model: 'gpt-4o' })).model).toBe('pocket');
  });

  it('errors are its classes: 400, 401, 429 with retries', async () => {
    const long = [{ role: 'user' as const, content: LONG.repeat(4) }];
    const tooLong = await client.chat.completions.create({ ...CHAT, messages: long }).catch((error) => error);
    expect(tooLong).toBeInstanceOf(BadRequestError);
    expect(tooLong.code).toBe('context_length_exceeded');
    const locked = await servePocket({ maxSequences: 1, maxQueued: 1 }, { apiKeys: ['secret'] });
    try {
      const stranger = new OpenAI({ baseURL: locked.baseURL, apiKey: 'wrong', maxRetries: 0 });
      await expect(stranger.models.list()).rejects.toBeInstanceOf(AuthenticationError);
      const friend = new OpenAI({ baseURL: locked.baseURL, apiKey: 'secret', maxRetries: 0 });
      const full = await friend.completions.create({ model: 'x', prompt: ['a', 'b', 'c'] }).catch((error) => error);
      expect(full).toBeInstanceOf(BadRequestError);
      const many = Array.from({ length: 6 }, () =>
        friend.completions.create({ model: 'x', prompt: 'a', max_tokens: 40 }).catch((error) => error),
      );
      const refused = (await Promise.all(many)).find((answer) => answer instanceof RateLimitError);
      expect(refused).toMatchObject({ code: 'queue_full' });
      expect(refused!.headers.get('retry-after')).toBe('2');
    } finally {
      await locked.close();
    }
  });
});

describe('responses (B3)', () => {
  it('answers a string', async () => {
    const response = await client.responses.create({
      model: 'pocket',
      input: FRANCE[0]!.content,
      instructions: 'Be short.',
    });
    expect(response.output_text).toContain('Paris');
    expect(response).toMatchObject({ object: 'response', status: 'completed', error: null, incomplete_details: null });
    expect(response.usage).toMatchObject({ input_tokens_details: { cached_tokens: expect.any(Number) } });
  });

  it('streams typed events with rising numbers, through its helper too', async () => {
    const asked = { model: 'pocket', input: FRANCE };
    const events = [];
    for await (const event of await client.responses.create({ ...asked, stream: true })) events.push(event);
    expect(events.map(({ sequence_number }) => sequence_number)).toEqual(events.map((_, index) => index));
    const types = events.map(({ type }) => type).filter((type, i, all) => type !== all[i - 1]);
    expect(types).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed',
    ]);
    const final = await client.responses.stream(asked).finalResponse();
    expect(final.output_text).toContain('Paris');
  });

  it('says when it was cut off, and refuses what it has not stored', async () => {
    const cut = await client.responses.create({ model: 'pocket', input: FRANCE, max_output_tokens: 1 });
    expect([cut.status, cut.incomplete_details?.reason]).toEqual(['incomplete', 'max_output_tokens']);
    const earlier = client.responses.create({ model: 'pocket', input: 'x', previous_response_id: 'resp_1' });
    await expect(earlier).rejects.toMatchObject({ status: 400, param: 'previous_response_id' });
  });
});

describe('abort (B3)', () => {
  it('stops prefill and frees the slot, streaming or not, and is counted', async () => {
    for (const stream of [true, false]) {
      const long = { model: 'pocket', messages: [{ role: 'user' as const, content: newLong() }] };
      const { count } = (await (await served.post('/tokenize', long)).json()) as { count: number };
      const before = await served.metric(PREFILLED);
      const cancelled = await served.metric('moestro_sequences_cancelled_total');
      const controller = new AbortController();
      const answer = client.chat.completions.create({ ...long, stream }, { signal: controller.signal });
      answer.catch(() => undefined);
      await expect.poll(() => served.metric(PREFILLED), POLLED).toBeGreaterThan(before);
      controller.abort();
      await expect.poll(() => served.metric('moestro_sequences_open'), POLLED).toBe(0);
      expect(await served.metric('moestro_kv_blocks_used')).toBe(0);
      expect(await served.metric('moestro_sequences_cancelled_total')).toBe(cancelled + 1);
      expect((await served.metric(PREFILLED)) - before).toBeLessThan(count);
    }
    const name = 'moestro_http_requests_cancelled_total{route="/chat/completions"}';
    await expect.poll(() => served.metric(name), POLLED).toBeGreaterThanOrEqual(2);
  });
});
