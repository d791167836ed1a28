import type { FastifyInstance } from 'fastify';
import { afterEach, describe, expect, it } from 'vitest';
import { MoestroError } from '../../src/errors.js';
import { CONTEXT_LENGTH, EOS, gate, saying, sseEvents, type TestServer, testServer, tokenEvent } from './scripted.js';

const USER = [{ role: 'user', content: 'hi' }];
let open: FastifyInstance[] = [];

async function server(...args: Parameters<typeof testServer>): Promise<TestServer> {
  const made = await testServer(...args);
  open.push(made.app);
  return made;
}

afterEach(async () => {
  await Promise.all(open.map((app) => app.close()));
  open = [];
});

const post = (app: FastifyInstance, payload: object | string, url = '/v1/chat/completions', headers = {}) =>
  app.inject({
    method: 'POST',
    url,
    headers: { 'content-type': 'application/json', ...headers },
    payload: typeof payload === 'string' ? payload : JSON.stringify(payload),
  });

interface Chunk {
  readonly id: string;
  readonly object: string;
  readonly choices: readonly {
    readonly index: number;
    readonly delta: { readonly role?: string; readonly content?: string };
    readonly logprobs: { readonly content: readonly { readonly token: string }[] } | null;
    readonly finish_reason: string | null;
  }[];
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number };
  readonly prompt_progress?: object;
}

const chunksOf = (body: string): Chunk[] =>
  sseEvents(body).filter((event): event is Chunk => typeof event === 'object');
const textOf = (chunks: readonly Chunk[], index = 0): string =>
  chunks
    .flatMap(({ choices }) => choices)
    .filter((choice) => choice.index === index)
    .map(({ delta }) => delta.content ?? '')
    .join('');

describe('POST /v1/chat/completions', () => {
  it('answers in the shape of the API when not streaming', async () => {
    const { app, engine } = await server(saying('Paris'));
    const response = await post(app, { model: 'any', messages: USER });
    expect(response.statusCode).toBe(200);
    expect(response.json()).toEqual({
      id: expect.stringMatching(/^chatcmpl-[\w-]{20}$/),
      object: 'chat.completion',
      created: expect.any(Number),
      model: 'scripted',
      system_fingerprint: 'moestro-exact-8',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'Paris', refusal: null },
          logprobs: null,
          finish_reason: 'stop',
        },
      ],
      usage: {
        prompt_tokens: 9,
        completion_tokens: 5,
        total_tokens: 14,
        prompt_tokens_details: { cached_tokens: 3 },
        completion_tokens_details: { reasoning_tokens: 0 },
        moestro: {
          mean_bits: 7.5,
          share_below_full_level: 0.25,
          bytes_read: 4096,
          stall_ms: 1.5,
          queue_ms: 1,
          prefill_ms: 100,
          decode_ms: 200,
          prefill_tokens_per_second: 60,
          decode_tokens_per_second: 20,
        },
      },
    });
    expect(Buffer.from(engine.requests[0]!.promptIds).toString()).toBe('user: hi\n');
    expect(engine.requests[0]!.stopTokenIds).toEqual([EOS]);
    expect(engine.requests[0]!.maxTokens).toBeNull();
  });

  it('streams role, text and finish, one event a data line, then [DONE]', async () => {
    const { app } = await server(saying('Grüße ☕'));
    const response = await post(app, { messages: USER, stream: true }, undefined, { accept: 'application/json' });
    expect(response.headers['content-type']).toBe('text/event-stream; charset=utf-8');
    expect(response.headers['cache-control']).toBe('no-cache');
    expect(response.headers['x-accel-buffering']).toBe('no');
    expect(response.headers['x-request-id']).toMatch(/^req_/);
    expect(response.body.endsWith('\n\ndata: [DONE]\n\n')).toBe(true);
    const chunks = chunksOf(response.body);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(chunks.every(({ object }) => object === 'chat.completion.chunk')).toBe(true);
    expect(chunks[0]!.choices[0]!.delta).toEqual({ role: 'assistant', content: '' });
    expect(textOf(chunks)).toBe('Grüße ☕');
    expect(response.body).not.toContain('\uFFFD');
    expect(chunks.at(-1)!.choices[0]).toMatchObject({ delta: {}, finish_reason: 'stop' });
    expect(chunks.some((chunk) => 'usage' in chunk)).toBe(false);
  });

  it('sends the usage in a chunk of its own when stream_options asks for it', async () => {
    const { app } = await server(saying('ab'));
    const body = { messages: USER, stream: true, stream_options: { include_usage: true } };
    const last = chunksOf((await post(app, body)).body).at(-1)!;
    expect(last.choices).toEqual([]);
    expect(last.usage).toMatchObject({ prompt_tokens: 9, completion_tokens: 2, moestro: { bytes_read: 4096 } });
  });

  it('tells the engine to do without known prefixes when cache_prompt is false, and only then', async () => {
    const { app, engine } = await server(saying('x'));
    for (const cache_prompt of [false, true, null, undefined]) await post(app, { messages: USER, cache_prompt });
    expect(engine.requests.map(({ usesPrefixes }) => usesPrefixes)).toEqual([false, undefined, undefined, undefined]);
  });

  it('reports prefill only when return_progress asks for it', async () => {
    const { app } = await server(saying('ab'));
    const without = chunksOf((await post(app, { messages: USER, stream: true })).body);
    const chunks = chunksOf((await post(app, { messages: USER, stream: true, return_progress: true })).body);
    expect(without.some((chunk) => 'prompt_progress' in chunk)).toBe(false);
    expect(chunks[0]).toMatchObject({ choices: [], prompt_progress: { total: 9, cache: 3, processed: 9 } });
  });

  it('runs n choices side by side with seeds of their own and counts the prompt once', async () => {
    const { app, engine } = await server(saying(({ sampling }) => `seed ${sampling.seed}`));
    const whole = (await post(app, { messages: USER, n: 3, seed: 5 })).json();
    expect(whole.choices.map((choice: { message: { content: string } }) => choice.message.content)).toEqual([
      'seed 5',
      'seed 6',
      'seed 7',
    ]);
    expect(whole.usage).toMatchObject({ prompt_tokens: 9, completion_tokens: 18 });
    const chunks = chunksOf((await post(app, { messages: USER, n: 2, seed: 5, stream: true })).body);
    expect([textOf(chunks, 0), textOf(chunks, 1)]).toEqual(['seed 5', 'seed 6']);
    expect(engine.requests.length).toBe(5);
  });

  it('never shows a stop text, also when it straddles tokens, and ends the engine there', async () => {
    const { app, engine } = await server(saying('one STOP two'));
    for (const stop of ['STOP', ['never', 'STOP', ''], ['OP two', 'STOP']]) {
      const body = (await post(app, { messages: USER, stop })).json();
      expect(body.choices[0]).toMatchObject({ message: { content: 'one ' }, finish_reason: 'stop' });
      // The account comes from the engine although its answer was cut short.
      expect(body.usage).toMatchObject({ completion_tokens: 8, moestro: { bytes_read: 4096, mean_bits: 7.5 } });
    }
    expect(engine.cancelled).toBe(3);
  });

  it('shows text that only began like a stop text', async () => {
    const { app } = await server(saying('a ST'));
    const body = (await post(app, { messages: USER, stop: ['STOP'] })).json();
    expect(body.choices[0].message.content).toBe('a ST');
  });

  it('reports logprobs with alternatives, bytes, and no infinities', async () => {
    const { app } = await server(saying('é!'));
    const body = (await post(app, { messages: USER, logprobs: true, top_logprobs: 2 })).json();
    const { content, refusal } = body.choices[0].logprobs;
    expect(refusal).toBeNull();
    expect(content.map(({ bytes }: { bytes: number[] }) => bytes)).toEqual([[0xc3], [0xa9], [0x21]]);
    expect(content[2]).toEqual({
      token: '!',
      logprob: -0.5,
      bytes: [0x21],
      top_logprobs: [
        { token: '!', logprob: -0.5, bytes: [0x21] },
        { token: '*', logprob: -9999, bytes: [0x2a] },
      ],
    });
    const streamed = chunksOf((await post(app, { messages: USER, logprobs: true, stream: true })).body);
    const tokens = streamed.flatMap(({ choices }) => choices[0]?.logprobs?.content ?? []);
    expect(tokens.length).toBe(3);
  });

  it('leaves out logprobs of tokens whose text fell to a stop text', async () => {
    const { app } = await server(saying('ab END'));
    const body = (await post(app, { messages: USER, logprobs: true, stop: ' END' })).json();
    expect(body.choices[0].message.content).toBe('ab');
    expect(body.choices[0].logprobs.content.map(({ token }: { token: string }) => token)).toEqual(['a', 'b']);
  });

  it('passes sampling on under the names of OpenAI and of llama.cpp', async () => {
    const { app, engine } = await server(saying('x'));
    await post(app, {
      messages: USER,
      temperature: 0.3,
      top_p: 0.8,
      top_k: 7,
      min_p: 0.1,
      repeat_penalty: 1.1,
      repeat_last_n: 32,
      presence_penalty: -1,
      frequency_penalty: 2,
      logit_bias: { '42': -100, '7': 3.5 },
      seed: 9,
      max_tokens: 5,
      max_completion_tokens: 4,
      moestro: { mode: 'routed' },
    });
    expect(engine.requests[0]).toMatchObject({
      maxTokens: 4,
      precision: { mode: 'routed' },
      sampling: {
        temperature: 0.3,
        topP: 0.8,
        topK: 7,
        minP: 0.1,
        repetitionPenalty: 1.1,
        penaltyWindow: 32,
        presencePenalty: -1,
        frequencyPenalty: 2,
        logitBias: [
          [7, 3.5],
          [42, -100],
        ],
        seed: 9,
        topLogprobs: null,
      },
    });
  });

  it.each([
    ['nothing when nothing is asked', {}, undefined],
    ['the bits that are asked for', { moestro: { bits: 2.75 } }, { mode: 'routed', bits: 2.75 }],
    ['mode and bits', { moestro: { mode: 'routed', bits: 4 } }, { mode: 'routed', bits: 4 }],
    ['tools that are switched off: the full level', { tools: [{}], tool_choice: 'none' }, { mode: 'exact' }],
    ['tools and a mode', { tools: [{}], tool_choice: 'none', moestro: { mode: 'routed' } }, { mode: 'routed' }],
    ['tools and bits', { tools: [{}], tool_choice: 'none', moestro: { bits: 3 } }, { mode: 'routed', bits: 3 }],
    [
      'a tool that spoke: the full level',
      { messages: [...USER, { role: 'tool', content: '5', tool_call_id: 'a' }] },
      { mode: 'exact' },
    ],
  ])('runs at the precision of %s', async (_name, body, precision) => {
    const { app, engine } = await server(saying('x'));
    const response = await post(app, { messages: USER, ...body });
    expect([response.statusCode, engine.requests[0]!.precision]).toEqual([200, precision]);
  });

  it('takes null for every optional field and ignores fields it does not know', async () => {
    const { app, engine } = await server(saying('x'));
    const nothing = Object.fromEntries(
      [
        ...['stop', 'seed', 'temperature', 'top_p', 'n', 'max_tokens', 'max_completion_tokens', 'logit_bias', 'stream'],
        ...['logprobs', 'top_logprobs', 'tools', 'tool_choice', 'response_format', 'stream_options', 'user', 'moestro'],
        ...['presence_penalty', 'frequency_penalty', 'reasoning_effort', 'modalities', 'functions', 'grammar', 'model'],
      ].map((name) => [name, null]),
    );
    const ignored = {
      user: 'u',
      metadata: { a: 1 },
      store: true,
      service_tier: 'auto',
      verbosity: 'low',
      prediction: {},
    };
    const harmless = { tools: [], tool_choice: 'auto', modalities: ['text'], response_format: { type: 'text' } };
    for (const extra of [nothing, ignored, harmless, { parallel_tool_calls: true, cache_prompt: true, made_up: [1] }]) {
      const response = await post(app, { messages: [{ role: 'user', content: 'hi', name: null }], ...extra });
      expect([response.statusCode, response.body.slice(0, 200)]).toEqual([200, expect.any(String)]);
    }
    expect(engine.requests.every(({ maxTokens }) => maxTokens === null)).toBe(true);
  });

  it('takes all roles and content parts', async () => {
    const { app, engine } = await server(saying('x'));
    const response = await post(app, {
      messages: [
        { role: 'developer', content: [{ type: 'text', text: 'Be ' }] },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'one' },
            { type: 'text', text: 'two' },
          ],
        },
        { role: 'assistant', content: null, tool_calls: [{ id: 'c', type: 'function', function: {} }] },
        { role: 'tool', tool_call_id: 'c', content: 'result' },
        { role: 'function', name: 'f', content: 'old' },
        { role: 'assistant', content: [{ type: 'text', text: 'ok' }] },
      ],
    });
    expect(response.statusCode).toBe(200);
    expect(Buffer.from(engine.requests[0]!.promptIds).toString()).toBe(
      'system: Be \nuser: one\ntwo\nassistant: \ntool: result\ntool: old\nassistant: ok\n',
    );
  });

  it('tells thoughts apart from the answer, whole and as a stream, unless asked not to', async () => {
    const { app } = await server(saying('<think>\nHm.\n</think>\n\nYes.'));
    const whole = (await post(app, { messages: USER })).json();
    expect(whole.choices[0].message).toEqual({
      role: 'assistant',
      content: 'Yes.',
      refusal: null,
      reasoning_content: 'Hm.',
    });
    // Bytes are tokens here: all up to the end of the marker.
    expect(whole.usage.completion_tokens_details.reasoning_tokens).toBe(20);
    const deltas = chunksOf((await post(app, { messages: USER, stream: true })).body).flatMap(({ choices }) =>
      choices.map(({ delta }) => delta as { reasoning_content?: string; content?: string }),
    );
    expect(deltas.map(({ reasoning_content = '' }) => reasoning_content).join('')).toBe('Hm.');
    expect(deltas.map(({ content = '' }) => content).join('')).toBe('Yes.');
    const plain = (await post(app, { messages: USER, reasoning_format: 'none' })).json();
    expect(plain.choices[0].message.content).toContain('</think>');
  });

  it('begins within the thoughts when the prompt ends with their marker', async () => {
    const { app } = await server(saying('Hm.</think>Yes.'));
    const messages = [{ role: 'user', content: 'think: <think>' }];
    expect((await post(app, { messages })).json().choices[0].message).toMatchObject({
      content: 'Yes.',
      reasoning_content: 'Hm.',
    });
  });

  it('gives reasoning_effort and chat_template_kwargs to the template', async () => {
    const { app, engine } = await server(saying('x'));
    await post(app, { messages: USER, reasoning_effort: 'none' });
    await post(app, { messages: USER, chat_template_kwargs: { enable_thinking: false } });
    for (const { promptIds } of engine.requests) expect(Buffer.from(promptIds).toString()).toContain('(no thinking)');
    expect(engine.requests.length).toBe(2);
  });

  const refused: readonly (readonly [string, object | string, string | null, string])[] = [
    ['JSON that is cut off', '{"messages": [', null, 'invalid_value'],
    ['a list', '[]', null, 'invalid_value'],
    ['nothing', '', null, 'invalid_value'],
    ['no messages', {}, 'messages', 'invalid_value'],
    ['empty messages', { messages: [] }, 'messages', 'invalid_value'],
    ['an unknown role', { messages: [{ role: 'king', content: 'x' }] }, 'messages[0].role', 'invalid_value'],
    ['no content', { messages: [{ role: 'user' }] }, 'messages[0].content', 'invalid_value'],
    [
      'an image',
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] },
      'messages[0].content[0].type',
      'unsupported_content',
    ],
    ['a hot temperature', { messages: USER, temperature: 3 }, 'temperature', 'invalid_value'],
    ['a worded temperature', { messages: USER, temperature: 'hot' }, 'temperature', 'invalid_value'],
    ['n of 0', { messages: USER, n: 0 }, 'n', 'invalid_value'],
    ['n beyond the limit', { messages: USER, n: 17 }, 'n', 'invalid_value'],
    ['top_logprobs alone', { messages: USER, top_logprobs: 3 }, 'top_logprobs', 'invalid_value'],
    ['21 top_logprobs', { messages: USER, logprobs: true, top_logprobs: 21 }, 'top_logprobs', 'invalid_value'],
    ['a number to stop at', { messages: USER, stop: 5 }, 'stop', 'invalid_value'],
    ['a bias for a word', { messages: USER, logit_bias: { the: 1 } }, 'logit_bias.the', 'invalid_value'],
    ['a bias of 101', { messages: USER, logit_bias: { '1': 101 } }, 'logit_bias.1', 'invalid_value'],
    [
      'a bias outside of the vocabulary',
      { messages: USER, logit_bias: { '260': 1 } },
      'logit_bias.260',
      'invalid_value',
    ],
    ['max_tokens of 0', { messages: USER, max_tokens: 0 }, 'max_tokens', 'invalid_value'],
    [
      'a tool without function',
      { messages: USER, tools: [{ type: 'function' }] },
      'tools[0].function',
      'invalid_value',
    ],
    [
      'a JSON format',
      { messages: USER, response_format: { type: 'json_schema', json_schema: { name: 'x', schema: { not: {} } } } },
      'response_format.json_schema.schema',
      'unsupported_format',
    ],
    ['9 bits', { messages: USER, moestro: { bits: 9 } }, 'moestro.bits', 'invalid_value'],
    ['exact bits', { messages: USER, moestro: { mode: 'exact', bits: 3 } }, 'moestro.bits', 'invalid_value'],
    ['a broken grammar', { messages: USER, grammar: 'root = "x"' }, 'grammar', 'unsupported_format'],
    ['audio', { messages: USER, modalities: ['text', 'audio'] }, 'modalities[1]', 'unsupported_parameter'],
    [
      'too long a prompt',
      { messages: [{ role: 'user', content: 'x'.repeat(CONTEXT_LENGTH) }] },
      'messages',
      'context_length_exceeded',
    ],
    [
      'what the template refuses',
      { messages: [{ role: 'user', content: 'break the template' }] },
      null,
      'template_failed',
    ],
  ];
  it.each(refused)('refuses %s with 400', async (_name, body, param, code) => {
    const { app, engine } = await server(saying('x'));
    for (const stream of [false, true]) {
      const response = await post(app, typeof body === 'string' ? body : { ...body, stream });
      expect(response.statusCode).toBe(400);
      expect(response.headers['content-type']).toContain('application/json');
      expect(response.json()).toEqual({
        error: { message: expect.stringMatching(/^Cannot /), type: 'invalid_request_error', param, code },
      });
    }
    expect(engine.requests).toEqual([]);
  });

  it('says what was found and what was needed when a value is wrong', async () => {
    const { app } = await server(saying('x'));
    const message = async (body: object) => (await post(app, { messages: USER, ...body })).json().error.message;
    expect(await message({ temperature: 'hot' })).toBe(
      'Cannot use "temperature": found "hot", needed a number from 0 to 2',
    );
    expect(await message({ stop: 5 })).toBe(
      'Cannot use "stop": found 5, needed a string or a list of which each is a string',
    );
    expect(await message({ messages: [{ role: 'user', content: 'x'.repeat(600) }] })).toBe(
      `Cannot take a prompt of 607 tokens: needed at most ${CONTEXT_LENGTH - 1}, the context of ${CONTEXT_LENGTH} less one token of answer`,
    );
  });

  it('maps what the engine throws to status, type and retry headers', async () => {
    const table = [
      ['QUEUE_FULL', 429, 'rate_limit_error', '2', undefined],
      ['ENGINE_CLOSED', 503, 'unavailable_error', '2', undefined],
      ['BUDGET_EXCEEDED', 507, 'server_error', undefined, 'false'],
      ['EXPERT_READ_FAILED', 500, 'server_error', undefined, undefined],
      ['ENGINE_FAILED', 500, 'server_error', undefined, 'false'],
    ] as const;
    for (const [code, status, type, retryAfter, shouldRetry] of table) {
      // biome-ignore lint/correctness/useYield: it fails before its first event.
      const { app } = await server(async function* () {
        throw new MoestroError(code, 'Cannot go on');
      });
      const response = await post(app, { messages: USER });
      expect([response.statusCode, response.headers['retry-after'], response.headers['x-should-retry']]).toEqual([
        status,
        retryAfter,
        shouldRetry,
      ]);
      expect(response.json().error).toEqual({ message: 'Cannot go on', type, param: null, code: code.toLowerCase() });
    }
  });

  it('keeps what nobody foresaw to its log', async () => {
    // biome-ignore lint/correctness/useYield: it fails before its first event.
    const { app } = await server(async function* () {
      throw new TypeError('/secret/path is not a function');
    });
    const response = await post(app, { messages: USER });
    expect(response.statusCode).toBe(500);
    expect(response.body).not.toContain('secret');
  });

  it('ends a stream that fails with an error event and no [DONE]', async () => {
    const { app } = await server(async function* (request) {
      yield tokenEvent(request, 0x61);
      throw new MoestroError('EXPERT_READ_FAILED', 'Cannot read expert 3/5: EIO');
    });
    const response = await post(app, { messages: USER, stream: true });
    expect(response.statusCode).toBe(200);
    expect(sseEvents(response.body).at(-1)).toEqual({
      error: { message: 'Cannot read expert 3/5: EIO', type: 'server_error', param: null, code: 'expert_read_failed' },
    });
  });

  it('answers 429 with Retry-After when it is full, and takes requests again afterwards', async () => {
    const { opened, open: openGate } = gate();
    const { app, engine } = await server(
      async function* (request, until) {
        await until(opened);
        yield* saying('x')(request, until);
      },
      { capacity: 2 },
    );
    expect((await post(app, { messages: USER, n: 3 })).statusCode).toBe(400);
    const two = [1, 2].map(() => post(app, { messages: USER }).then(({ statusCode }) => statusCode));
    await expect.poll(() => engine.requests.length).toBe(2);
    const full = await post(app, { messages: USER, stream: true });
    expect(full.statusCode).toBe(429);
    expect(full.json().error).toMatchObject({ type: 'rate_limit_error', code: 'queue_full' });
    expect(full.headers['retry-after']).toBe('2');
    openGate();
    expect(await Promise.all(two)).toEqual([200, 200]);
    const again = await Promise.all([1, 2].map(() => post(app, { messages: USER })));
    expect(again.map(({ statusCode }) => statusCode)).toEqual([200, 200]);
  });

  it('answers 503 with Retry-After while the model loads', async () => {
    const { app } = await server(saying('x'), { isLoading: true });
    const response = await post(app, { messages: USER });
    expect([response.statusCode, response.headers['retry-after']]).toEqual([503, '2']);
    expect(response.json().error).toMatchObject({ type: 'unavailable_error', code: 'model_loading' });
  });
});
