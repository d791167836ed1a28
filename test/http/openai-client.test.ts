/** The `openai` package against a listening server: what its users see. */
import type { FastifyInstance } from 'fastify';
import OpenAI, { APIError, BadRequestError, RateLimitError } from 'openai';
import { afterEach, describe, expect, it } from 'vitest';
import { MoestroError } from '../../src/errors.js';
import { gate, listening, manualTime, rawPost, type Script, saying, testServer, tokenEvent } from './scripted.js';

let open: FastifyInstance[] = [];
afterEach(async () => {
  await Promise.all(open.map((app) => app.close()));
  open = [];
});

async function served(script: Script, options: Parameters<typeof testServer>[1] = {}) {
  const made = await testServer(script, options);
  open.push(made.app);
  const url = await listening(made.app);
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any', maxRetries: 0 });
  const metric = async (line: string) => (await made.metrics.text(null, null)).split('\n').includes(line);
  return { ...made, url, client, metric };
}

const CHAT = { model: 'any', messages: [{ role: 'user' as const, content: 'hi' }] };
const CANCELLED = 'moestro_http_requests_cancelled_total{route="/chat/completions"} 1';
const BROKEN_OFF = 'moestro_http_requests_total{route="/chat/completions",status="499"} 1';

/** Says one byte at a time, the next one only when the test lets it, and the first only after `start`. */
const forever = (start: Promise<void>): Script =>
  async function* (request, until) {
    yield { kind: 'prefill', done: 0, total: request.promptIds.length, cached: 0 };
    await until(start);
    for (;;) {
      yield tokenEvent(request, 0x61);
      await until(new Promise((resolve) => setImmediate(resolve)));
    }
  };

describe('openai client', () => {
  it('reads an answer, its usage and its request id', async () => {
    const { client } = await served(saying('Paris'));
    const answer = await client.chat.completions.create(CHAT);
    expect(answer.choices[0]!.message.content).toBe('Paris');
    expect(answer._request_id).toMatch(/^req_/);
    expect(answer.usage?.completion_tokens).toBe(5);
  });

  it('reads a stream, plain and through its helper', async () => {
    const { client } = await served(saying('Grüße aus Paris'));
    let text = '';
    for await (const chunk of await client.chat.completions.create({ ...CHAT, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? '';
    }
    expect(text).toBe('Grüße aus Paris');
    const helper = client.chat.completions.stream({ ...CHAT, stream_options: { include_usage: true } });
    const final = await helper.finalChatCompletion();
    expect(final.choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: 'Grüße aus Paris' } });
    expect((await helper.totalUsage()).prompt_tokens).toBe(9);
  });

  it('reads logprobs and several choices through its helper', async () => {
    const { client } = await served(saying('ab'));
    const helper = client.chat.completions.stream({ ...CHAT, n: 2, logprobs: true, top_logprobs: 1 });
    const final = await helper.finalChatCompletion();
    expect(final.choices.map(({ message }) => message.content)).toEqual(['ab', 'ab']);
    expect(final.choices[1]!.logprobs?.content?.map(({ logprob }) => logprob)).toEqual([-0.5, -0.5]);
  });

  it('reads completions and models', async () => {
    const { client } = await served(saying('!'));
    const completion = await client.completions.create({ model: 'any', prompt: 'hey', echo: true });
    expect(completion.choices[0]!.text).toBe('hey!');
    const ids: string[] = [];
    for await (const model of client.models.list()) ids.push(model.id);
    expect(ids).toEqual(['scripted']);
    expect((await client.models.retrieve('scripted')).id).toBe('scripted');
    await expect(client.models.retrieve('other')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  });

  it('raises errors of its own classes with our codes', async () => {
    const { client } = await served(saying('x'));
    const messages = [{ role: 'user' as const, content: 'x'.repeat(600) }];
    const failure = await client.chat.completions.create({ ...CHAT, messages, stream: true }).catch((error) => error);
    expect(failure).toBeInstanceOf(BadRequestError);
    expect(failure).toMatchObject({ code: 'context_length_exceeded', param: 'messages' });
  });

  it('raises an error that comes mid-stream, after what came before it', async () => {
    const { client } = await served(async function* (request) {
      yield tokenEvent(request, 0x61);
      throw new MoestroError('EXPERT_READ_FAILED', 'Cannot read expert 3/5: EIO');
    });
    let text = '';
    const read = async () => {
      for await (const chunk of await client.chat.completions.create({ ...CHAT, stream: true })) {
        text += chunk.choices[0]?.delta.content ?? '';
      }
    };
    const failure = await read().catch((error) => error);
    expect(failure).toBeInstanceOf(APIError);
    expect(failure).toMatchObject({ code: 'expert_read_failed' });
    expect(text).toBe('a');
  });

  it('retries a full queue but not what cannot fit the budget', async () => {
    for (const [code, attempts] of [
      ['QUEUE_FULL', 2],
      ['BUDGET_EXCEEDED', 1],
    ] as const) {
      let calls = 0;
      // biome-ignore lint/correctness/useYield: it fails before its first event.
      const { client } = await served(async function* () {
        calls++;
        throw new MoestroError(code, 'Cannot take it');
      });
      const failure = await client.chat.completions.create(CHAT, { maxRetries: 1 }).catch((error) => error);
      expect([code, calls, failure.code]).toEqual([code, attempts, code.toLowerCase()]);
      if (code === 'QUEUE_FULL') expect(failure).toBeInstanceOf(RateLimitError);
    }
  });

  it('gets the headers of a stream before the first token is there, and pings while it waits', async () => {
    const { opened, open: openGate } = gate();
    const time = manualTime();
    const { client } = await served(forever(opened), { every: time.every });
    const { response } = await client.chat.completions.create({ ...CHAT, stream: true }).withResponse();
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    expect(time.intervalsMs).toEqual([10_000]);
    const reader = response.body!.getReader();
    time.fire();
    const first = new TextDecoder().decode((await reader.read()).value);
    expect(first.startsWith(': ping\n\n')).toBe(true);
    openGate();
    let seen = first;
    while (!seen.includes('"role":"assistant"')) seen += new TextDecoder().decode((await reader.read()).value);
    await reader.cancel();
  });

  it("ends the engine's work when a reader of a stream breaks off", async () => {
    const { client, engine, metric } = await served(forever(Promise.resolve()));
    for await (const chunk of await client.chat.completions.create({ ...CHAT, stream: true })) {
      if (chunk.choices[0]?.delta.content === 'a') break;
    }
    await expect.poll(() => engine.cancelled).toBe(1);
    await expect.poll(() => metric(CANCELLED)).toBe(true);
  });

  it("ends the engine's work when a client goes away during prefill, streaming or not", async () => {
    for (const stream of [true, false]) {
      const { engine, url, metric } = await served(forever(new Promise(() => undefined)));
      const request = rawPost(`${url}/v1/chat/completions`, { ...CHAT, stream });
      await expect.poll(() => engine.requests.length).toBe(1);
      request.destroy();
      await expect.poll(() => engine.cancelled).toBe(1);
      await expect.poll(() => metric(CANCELLED)).toBe(true);
      await expect.poll(() => metric(BROKEN_OFF)).toBe(true);
    }
  });

  it('does not count answers that came through as cancelled', async () => {
    const { client, engine, metric } = await served(saying('x'));
    await client.chat.completions.create(CHAT);
    await (await client.chat.completions.create({ ...CHAT, stream: true }).asResponse()).text();
    await expect.poll(() => metric('moestro_http_requests_total{route="/chat/completions",status="200"} 2')).toBe(true);
    expect([engine.cancelled, await metric(CANCELLED)]).toEqual([0, false]);
  });

  it('makes the engine wait for a reader that is slower than it', async () => {
    let said = 0;
    const line = [...Buffer.from('x'.repeat(1000))];
    const { engine, url } = await served(async function* (request, until) {
      for (;;) {
        for (const byte of line) yield tokenEvent(request, byte);
        said += line.length;
        await until(new Promise((resolve) => setImmediate(resolve)));
      }
    });
    const request = rawPost(`${url}/v1/chat/completions`, { ...CHAT, stream: true });
    await new Promise((resolve) => request.on('response', (response) => resolve(response.pause())));
    // Nobody reads: sockets and buffers fill up, then the engine stands still.
    let before = -1;
    await expect
      .poll(
        () => {
          const isStill = said === before && said > 0;
          before = said;
          return isStill;
        },
        { interval: 200, timeout: 30_000 },
      )
      .toBe(true);
    request.destroy();
    await expect.poll(() => engine.cancelled).toBe(1);
  });
});
