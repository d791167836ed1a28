import type { FastifyInstance } from 'fastify';
import { afterEach, describe, expect, it } from 'vitest';
import { MoestroError } from '../../src/errors.js';
import { rawPost, saying, listening, testServer } from './scripted.js';

let open: FastifyInstance[] = [];
afterEach(async () => {
  await Promise.all(open.map((app) => app.close()));
  open = [];
});

async function server(options: Parameters<typeof testServer>[1] = {}) {
  const made = await testServer(saying('x'), options);
  open.push(made.app);
  const post = (payload: object) => made.app.inject({ method: 'POST', url: '/v1/embeddings', payload });
  return { ...made, post };
}

const floats = (base64: string): number[] => {
  const bytes = Buffer.from(base64, 'base64');
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(i * 4));
};

describe('POST /v1/embeddings', () => {
  it('answers one unit vector a text, in order, and counts the tokens', async () => {
    const { post } = await server();
    const body = (await post({ model: 'any', input: ['ab', 'c'], encoding_format: 'float', user: 'u' })).json();
    // The scripted engine gives (sum of ids, count, is mean, 0).
    const ab = Math.hypot(195, 2, 1);
    expect(body).toEqual({
      object: 'list',
      model: 'scripted',
      data: [
        { object: 'embedding', index: 0, embedding: [195 / ab, 2 / ab, 1 / ab, 0].map(Math.fround) },
        { object: 'embedding', index: 1, embedding: expect.any(Array) },
      ],
      usage: { prompt_tokens: 3, total_tokens: 3 },
    });
    expect(Math.hypot(...body.data[1].embedding)).toBeCloseTo(1, 6);
  });

  it('takes a text, texts, ids and lists of ids', async () => {
    const { post } = await server();
    const embed = async (input: unknown) =>
      (await post({ input })).json().data.map(({ embedding }: { embedding: number[] }) => embedding);
    const [one] = await embed('ab');
    expect(await embed([97, 98])).toEqual([one]);
    expect(await embed([[97, 98], [97]])).toEqual([one, (await embed('a'))[0]]);
  });

  it('writes base64 of little-endian float32', async () => {
    const { post } = await server();
    const plain = (await post({ input: 'ab', encoding_format: 'float' })).json().data[0].embedding;
    const packed = (await post({ input: 'ab', encoding_format: 'base64' })).json().data[0].embedding;
    expect(floats(packed)).toEqual(plain);
  });

  it('cuts to the dimensions asked for and scales again', async () => {
    const { post } = await server();
    const { embedding } = (await post({ input: 'ab', dimensions: 2 })).json().data[0];
    expect(embedding).toEqual([195 / Math.hypot(195, 2), 2 / Math.hypot(195, 2)].map(Math.fround));
  });

  it('takes the last state instead of the mean when asked', async () => {
    const { post } = await server();
    const { embedding } = (await post({ input: 'ab', pooling: 'last' })).json().data[0];
    expect(embedding[2]).toBe(0);
  });

  it.each([
    ['nothing', {}, 'input', 'invalid_value'],
    ['an empty text', { input: '' }, 'input', 'invalid_value'],
    ['no texts', { input: [] }, 'input', 'invalid_value'],
    ['mixed texts', { input: ['a', 1] }, 'input', 'invalid_value'],
    ['an id outside of the vocabulary', { input: [260] }, 'input', 'invalid_value'],
    ['2,049 texts', { input: Array(2049).fill('a') }, 'input', 'invalid_value'],
    ['a text beyond the context', { input: 'x'.repeat(513) }, 'input', 'context_length_exceeded'],
    ['more dimensions than there are', { input: 'a', dimensions: 5 }, 'dimensions', 'invalid_value'],
    ['another format', { input: 'a', encoding_format: 'hex' }, 'encoding_format', 'invalid_value'],
  ])('refuses %s with 400', async (_name, body, param, code) => {
    const { post } = await server();
    const response = await post(body);
    expect([response.statusCode, response.json().error]).toMatchObject([400, { param, code }]);
  });

  it('answers many texts although they are more than the server has room for, and says when it is full', async () => {
    const { post, engine } = await server({ capacity: 2 });
    expect((await post({ input: Array(9).fill('ab') })).json().data.length).toBe(9);
    let held = 0;
    const isFull = new Promise<void>((resolve) => {
      engine.embed = (_ids, _options, signal) =>
        new Promise((_resolve, reject) => {
          signal?.addEventListener('abort', () => reject(new MoestroError('CANCELLED', 'Cannot go on: cancelled')));
          if (++held === 2) resolve();
        });
    });
    const url = await listening(open[0]!);
    const client = rawPost(`${url}/v1/embeddings`, { input: ['a', 'b', 'c'] });
    await isFull;
    expect((await post({ input: 'a' })).statusCode).toBe(429);
    client.destroy();
  });
});
