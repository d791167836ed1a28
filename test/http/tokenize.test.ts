import type { FastifyInstance } from 'fastify';
import { afterEach, describe, expect, it } from 'vitest';
import { saying, testServer } from './scripted.js';

let open: FastifyInstance[] = [];
afterEach(async () => {
  await Promise.all(open.map((app) => app.close()));
  open = [];
});

async function poster() {
  const { app } = await testServer(saying('x'));
  open.push(app);
  return (url: string, payload: object) => app.inject({ method: 'POST', url, payload });
}

describe('POST /tokenize and /detokenize', () => {
  it('turn a text into ids and back', async () => {
    const post = await poster();
    const { tokens, count } = (await post('/tokenize', { content: 'hé' })).json();
    expect([tokens, count]).toEqual([[0x68, 0xc3, 0xa9], 3]);
    expect((await post('/v1/detokenize/', { tokens })).json()).toEqual({ content: 'hé' });
    expect((await post('/detokenize', { tokens: [0x68, 256] })).json()).toEqual({ content: 'h<256>' });
  });

  it('shows pieces, as bytes where they are no text by themselves', async () => {
    const post = await poster();
    const { tokens } = (await post('/v1/tokenize', { prompt: 'hé', with_pieces: true })).json();
    expect(tokens).toEqual([
      { id: 0x68, piece: 'h' },
      { id: 0xc3, piece: [0xc3] },
      { id: 0xa9, piece: [0xa9] },
    ]);
  });

  it('count what a conversation becomes', async () => {
    const post = await poster();
    const body = (await post('/tokenize', { messages: [{ role: 'user', content: 'hi' }] })).json();
    expect(body).toMatchObject({ count: 'user: hi\n'.length, max_model_len: 512 });
  });

  it('count a conversation that is left open, and take what does nothing beside one', async () => {
    const post = await poster();
    const messages = [{ role: 'assistant', content: 'hi' }];
    const count = async (more: object) => (await post('/tokenize', { messages, ...more })).json().count;
    expect(await count({ continue_final_message: true })).toBe('assistant: hi'.length);
    const whole = 'assistant: hi\n'.length;
    expect(await count({ continue_final_message: false, add_generation_prompt: true })).toBe(whole);
    expect(await count({ add_special: false, parse_special: true })).toBe(whole);
  });

  it.each([
    ['/tokenize', { messages: [{ role: 'user', content: 'x' }], add_special: true }, 'add_special'],
    ['/tokenize', { messages: [{ role: 'user', content: 'x' }], parse_special: false }, 'parse_special'],
    [
      '/tokenize',
      { messages: [{ role: 'user', content: 'x' }], continue_final_message: true },
      'continue_final_message',
    ],
    ['/tokenize', { content: 'x', continue_final_message: true }, 'continue_final_message'],
    ['/tokenize', {}, 'content'],
    ['/tokenize', { content: 5 }, 'content'],
    ['/tokenize', { content: 'x'.repeat((1 << 20) + 1) }, 'content'],
    ['/detokenize', {}, 'tokens'],
    ['/detokenize', { tokens: ['a'] }, 'tokens[0]'],
    ['/detokenize', { tokens: [260] }, 'tokens'],
  ])('refuse what they cannot use: %s', async (url, body, param) => {
    const post = await poster();
    const response = await post(url, body);
    expect([response.statusCode, response.json().error.param]).toEqual([400, param]);
  });
});
