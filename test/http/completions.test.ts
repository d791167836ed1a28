import type { FastifyInstance } from 'fastify';
import { afterEach, describe, expect, it } from 'vitest';
import { saying, sseEvents, testServer, USAGE } from './scripted.js';

let open: FastifyInstance[] = [];
afterEach(async () => {
  await Promise.all(open.map((app) => app.close()));
  open = [];
});

async function server(text: Parameters<typeof saying>[0]) {
  const made = await testServer(saying(text));
  open.push(made.app);
  const post = (payload: object) => made.app.inject({ method: 'POST', url: '/v1/completions', payload });
  return { ...made, post };
}

const textOfPrompt = (ids: readonly number[]): string => Buffer.from(ids).toString('utf8');

describe('POST /v1/completions', () => {
  it('completes a text without a template, 16 tokens unless told otherwise', async () => {
    const { post, engine } = await server('abcdefghijklmnopqrstuvwxyz');
    const body = (await post({ prompt: 'Once' })).json();
    expect(body).toMatchObject({
      object: 'text_completion',
      id: expect.stringMatching(/^cmpl-/),
      model: 'scripted',
      choices: [{ text: 'abcdefghijklmnop', index: 0, finish_reason: 'length', logprobs: null }],
      usage: { prompt_tokens: 4, completion_tokens: 16, total_tokens: 20 },
    });
    expect(textOfPrompt(engine.requests[0]!.promptIds)).toBe('Once');
  });

  it('takes strings, ids, and lists of both, n answers to each in order', async () => {
    const { post, engine } = await server(
      ({ promptIds, sampling }) => `${textOfPrompt(promptIds)}${sampling.seed ?? ''}`,
    );
    const texts = async (payload: object): Promise<string[]> =>
      (await post(payload)).json().choices.map((choice: { text: string }) => choice.text);
    expect(await texts({ prompt: ['one', 'two'] })).toEqual(['one', 'two']);
    expect(await texts({ prompt: [0x68, 0x69] })).toEqual(['hi']);
    expect(await texts({ prompt: [[0x68], [0x69]] })).toEqual(['h', 'i']);
    expect(await texts({ prompt: ['a', 'b'], n: 2, seed: 1 })).toEqual(['a1', 'a2', 'b1', 'b2']);
    expect(engine.requests.length).toBe(9);
  });

  it('counts each prompt once when it has several answers', async () => {
    const { post } = await server('xyz');
    expect((await post({ prompt: ['ab', 'abcd'], n: 2 })).json().usage).toMatchObject({
      prompt_tokens: 6,
      completion_tokens: 12,
    });
  });

  it('keeps the space before the first word, which goes on with the prompt', async () => {
    const { app, post } = await server(' there');
    expect((await post({ prompt: 'hey', echo: true })).json().choices[0].text).toBe('hey there');
    const chat = await app.inject({
      method: 'POST',
      url: '/v1/chat/completions',
      payload: { messages: [{ role: 'user', content: 'hey' }] },
    });
    expect(chat.json().choices[0].message.content).toBe('there');
  });

  it('repeats the prompt before the answer when echo is set', async () => {
    const { post, engine } = await server('!');
    expect((await post({ prompt: 'hey', echo: true })).json().choices[0].text).toBe('hey!');
    expect((await post({ prompt: [0x68], echo: true })).json().choices[0].text).toBe('h!');
    const nothing = (await post({ prompt: 'hey', echo: true, max_tokens: 0 })).json();
    expect(nothing.choices[0]).toMatchObject({ text: 'hey', finish_reason: 'length' });
    expect(engine.requests.length).toBe(2);
  });

  it('streams text chunks, finish, usage and [DONE]', async () => {
    const { post } = await server('né');
    const response = await post({ prompt: 'x', stream: true, echo: true, stream_options: { include_usage: true } });
    const events = sseEvents(response.body);
    const chunks = events.slice(0, -2) as { choices: { text: string; finish_reason: string | null }[] }[];
    expect(chunks.map(({ choices }) => choices[0]!.text)).toEqual(['x', 'n', 'é', '']);
    expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe('stop');
    expect(events.at(-2)).toMatchObject({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 3 } });
    expect(events.at(-1)).toBe('data: [DONE]');
  });

  it('reports logprobs in the older shape, with offsets into the text', async () => {
    const { post } = await server('abc');
    expect((await post({ prompt: 'x', logprobs: 1 })).json().choices[0].logprobs).toEqual({
      tokens: ['a', 'b', 'c'],
      token_logprobs: [-0.5, -0.5, -0.5],
      top_logprobs: [{ a: -0.5 }, { b: -0.5 }, { c: -0.5 }],
      text_offset: [0, 1, 2],
    });
    expect((await post({ prompt: 'x', logprobs: 0 })).json().choices[0].logprobs.top_logprobs).toBeNull();
    const events = sseEvents((await post({ prompt: 'x', logprobs: 1, stream: true })).body) as {
      choices?: { logprobs: { text_offset: number[] } | null }[];
    }[];
    expect(events.flatMap((event) => event.choices?.[0]?.logprobs?.text_offset ?? [])).toEqual([0, 1, 2]);
  });

  it('counts offsets in the text that is shown when tokens are pieces of characters', async () => {
    const { post } = await server('a€b');
    const { text, logprobs } = (await post({ prompt: 'x', logprobs: 0 })).json().choices[0];
    expect([text, logprobs.text_offset]).toEqual(['a€b', [0, 1, 1, 1, 2]]);
    const events = sseEvents((await post({ prompt: 'x', logprobs: 0, stream: true })).body) as {
      choices?: { logprobs: { text_offset: number[] } | null }[];
    }[];
    expect(events.flatMap((event) => event.choices?.[0]?.logprobs?.text_offset ?? [])).toEqual([0, 1, 1, 1, 2]);
  });

  it('puts a text between prompt and suffix by the markers of the model', async () => {
    const { post, engine } = await server('!');
    expect((await post({ prompt: 'a', suffix: 'b' })).statusCode).toBe(200);
    expect(engine.requests[0]!.promptIds).toEqual([257, 0x61, 258, 0x62, 259]);
  });

  it('keeps the likeliest of best_of answers and counts them all', async () => {
    let answer = 0;
    const { app } = await testServer(async function* (request) {
      const tokenId = 0x61 + answer++;
      const logprob = [-3, -0.5, -2][answer - 1]!;
      yield { kind: 'token', tokenId, logprob, topLogprobs: [] };
      const usage = { ...USAGE, promptTokens: request.promptIds.length, completionTokens: 1 };
      yield { kind: 'finish', reason: 'stop', usage };
    });
    const payload = { prompt: 'x', best_of: 3, n: 2 };
    const body = (await app.inject({ method: 'POST', url: '/v1/completions', payload })).json();
    await app.close();
    expect(body.choices.map(({ text }: { text: string }) => text)).toEqual(['b', 'c']);
    expect(body.choices[0].logprobs).toBeNull();
    expect(body.usage).toMatchObject({ prompt_tokens: 1, completion_tokens: 3 });
  });

  it('repeats the prompt with the logprobs of its own tokens', async () => {
    const { app, engine } = await testServer(async function* (request) {
      const token = (tokenId: number) => ({
        tokenId,
        logprob: -1,
        topLogprobs: [{ tokenId: 0x2a, logprob: -Infinity }],
      });
      yield { kind: 'prompt', tokens: request.promptIds.slice(1).map(token) };
      yield* saying('cd')(request, async () => undefined);
    });
    const post = (more: object) =>
      app.inject({
        method: 'POST',
        url: '/v1/completions',
        payload: { prompt: 'ab', echo: true, logprobs: 1, ...more },
      });
    const [choice] = (await post({})).json().choices;
    expect(choice).toMatchObject({
      text: 'abcd',
      logprobs: {
        tokens: ['a', 'b', 'c', 'd'],
        token_logprobs: [null, -1, -0.5, -0.5],
        top_logprobs: [null, { '*': -9999 }, { c: -0.5 }, { d: -0.5 }],
        text_offset: [0, 1, 2, 3],
      },
    });
    const nothing = (await post({ max_tokens: 0 })).json().choices[0];
    expect([nothing.text, nothing.logprobs.token_logprobs]).toEqual(['ab', [null, -1]]);
    expect(engine.requests.map(({ promptLogprobs }) => promptLogprobs)).toEqual([1, 1]);
    const events = sseEvents((await post({ stream: true })).body) as {
      choices?: { text: string; logprobs: { text_offset: number[] } | null }[];
    }[];
    expect(events.flatMap((event) => event.choices?.[0]?.logprobs?.text_offset ?? [])).toEqual([0, 1, 2, 3]);
    await app.close();
  });

  it('goes on where the model would end when ignore_eos is set', async () => {
    const { post, engine } = await server('!');
    const neutral = { typical_p: 1, mirostat: 0, mirostat_tau: 5, dry_multiplier: 0, n_keep: 4 };
    expect((await post({ prompt: 'a', ignore_eos: true, ...neutral })).statusCode).toBe(200);
    expect(engine.requests[0]!.stopTokenIds).toEqual([]);
  });

  const refused: readonly (readonly [string, object, string, string])[] = [
    ['no prompt', {}, 'prompt', 'invalid_value'],
    ['an empty prompt', { prompt: '' }, 'prompt', 'invalid_value'],
    ['no prompts', { prompt: [] }, 'prompt', 'invalid_value'],
    ['mixed prompts', { prompt: ['a', 1] }, 'prompt', 'invalid_value'],
    ['an id outside of the vocabulary', { prompt: [260] }, 'prompt', 'invalid_value'],
    ['a negative id', { prompt: [[-1]] }, 'prompt', 'invalid_value'],
    ['more prompts than there is room for', { prompt: Array(21).fill('x') }, 'prompt', 'invalid_value'],
    ['a suffix beside ids', { prompt: [1], suffix: 'y' }, 'prompt', 'invalid_value'],
    ['a suffix with echo', { prompt: 'x', suffix: 'y', echo: true }, 'echo', 'invalid_value'],
    ['a best_of below n', { prompt: 'x', best_of: 1, n: 2 }, 'best_of', 'invalid_value'],
    ['a best_of of 17', { prompt: 'x', best_of: 17 }, 'best_of', 'invalid_value'],
    ['a best_of in a stream', { prompt: 'x', best_of: 2, stream: true }, 'best_of', 'invalid_value'],
    ['typical_p', { prompt: 'x', typical_p: 0.9 }, 'typical_p', 'unsupported_parameter'],
    ['mirostat', { prompt: 'x', mirostat: 2 }, 'mirostat', 'unsupported_parameter'],
  ];
  it.each(refused)('refuses %s with 400', async (_name, body, param, code) => {
    const { post } = await server('x');
    const response = await post(body);
    expect([response.statusCode, response.json().error]).toMatchObject([400, { param, code }]);
  });
});
