/** The whole server with the bundled model, and clients at their worst: each mistake has its answer, and nothing stays. */
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import { engineConfig, serverConfig } from '../../src/config.js';
import { type EngineConfig, GREEDY } from '../../src/engine/types.js';
import type { ServedModel } from '../../src/http/model-shelf.js';
import { createServer } from '../../src/http/server.js';
import { ServerMetrics } from '../../src/metrics/server-metrics.js';
import { type OpenModel, openModel } from '../../src/open-model.js';
import { soleModel } from '../helpers/sole-model.js';

const CHAT = '/v1/chat/completions';
const HI = [{ role: 'user', content: 'hi' }];
const CAPITAL = { messages: [{ role: 'user', content: 'What is the capital of France?' }], temperature: 0 };
/** An answer to the end of the context: the token that would end it is forbidden. */
const ENDLESS = { messages: HI, stream: true, logit_bias: { 4095: -100, 4093: -100 }, temperature: 1 };

interface RealServer {
  readonly app: FastifyInstance;
  readonly opened: OpenModel;
  readonly port: number;
}

async function realServer(changes: Partial<EngineConfig> = {}): Promise<RealServer> {
  const config = engineConfig(BUNDLED_MODEL, { budget: '400MiB', threads: 1, maxSequences: 4, maxQueued: 32 }, {});
  const opened = await openModel({ ...config, ...changes }, GREEDY);
  const served: ServedModel = { id: 'pocket', createdSeconds: 0, generator: opened.generator };
  const settings = serverConfig({ port: 0, logLevel: 'silent', bodyLimit: '1MiB' }, {});
  const app = await createServer({
    config: settings,
    models: soleModel('pocket', () => served),
    metrics: new ServerMetrics(),
    readBudget: Number,
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  return { app, opened, port: (app.server.address() as AddressInfo).port };
}

async function close({ app, opened }: RealServer): Promise<void> {
  await app.close();
  await opened.close();
}

let server: RealServer;
beforeAll(async () => {
  server = await realServer();
});
afterAll(() => close(server));

const url = (path: string) => `http://127.0.0.1:${server.port}${path}`;

function post(body: string | Uint8Array | object, type = 'application/json', path = CHAT): Promise<Response> {
  const bytes = typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body);
  return fetch(url(path), {
    method: 'POST',
    body: bytes as NonNullable<RequestInit['body']>,
    headers: { 'content-type': type },
  });
}

/** What a connection is told after these bytes; it must be closed by the server. */
function rawAnswer(bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(server.port, '127.0.0.1', () => socket.write(bytes));
    let answer = '';
    socket.on('data', (data) => (answer += data));
    socket.on('error', reject);
    socket.on('close', () => resolve(answer));
  });
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(url('/metrics'))).text();
  return Number(new RegExp(`^moestro_${name} (\\S+)$`, 'm').exec(text)?.[1]);
}

/** Asks until nothing runs or waits; the engine frees a sequence within the step that runs. */
async function untilIdle(): Promise<number> {
  while ((await metric('sequences_open')) + (await metric('sequences_queued')) > 0);
  return metric('kv_blocks_used');
}

/** Sends a request and cuts the connection: after the first bytes of the answer, or as soon as the engine has it. */
function sendAndLeave(body: object, when: 'at the first bytes' | 'before any'): Promise<void> {
  return new Promise((resolve) => {
    const sent = request({
      host: '127.0.0.1',
      port: server.port,
      path: CHAT,
      method: 'POST',
      headers: { 'content-type': 'application/json' },
    });
    let isOver = false;
    sent.on('close', () => {
      isOver = true;
      resolve();
    });
    sent.on('error', () => undefined);
    sent.on('response', (response) => {
      response.on('error', () => undefined);
      if (when === 'at the first bytes') response.once('data', () => sent.destroy());
      else response.resume();
    });
    sent.end(JSON.stringify(body));
    if (when === 'before any') {
      void (async () => {
        while (!isOver && (await metric('kv_blocks_used')) === 0);
        sent.destroy();
      })();
    }
  });
}

const nested = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`;
const bytesOf = (...parts: (string | number[])[]) => Buffer.concat(parts.map((part) => Buffer.from(part as string)));

describe('the server with the bundled model', () => {
  it.each([
    ['no JSON', '{nope', 400, /found no JSON \(.*position 1.*needed a JSON object/],
    ['an empty body', '', 400, /found nothing/],
    ['a list', '[]', 400, /found \[\], needed an object/],
    ['nesting past the stack', `{"messages":${nested(200_000)}}`, 400, /messages\[0\]".*nested too deep/],
    ['bytes that are no UTF-8', bytesOf('{"messages":"', [0xff, 0xc3], '"}'), 400, /not UTF-8/],
    ['a wrong type', { messages: HI, temperature: 'hot' }, 400, /"temperature": found "hot", needed a number/],
    [
      'a prompt that is too long',
      { messages: [{ role: 'user', content: 'a '.repeat(9000) }] },
      400,
      /needed at most 2047/,
    ],
    ['a body over the limit', 'a'.repeat(2 << 20), 413, /found 2097152 bytes, needed at most the limit of 1048576/],
  ] as const)('answers %s with a 4xx that says found and needed', async (_what, body, status, message) => {
    const response = await post(body);
    const { error } = (await response.json()) as { error: { message: string; type: string } };
    expect(error.message).toMatch(message);
    expect([response.status, error.type]).toEqual([status, 'invalid_request_error']);
  });

  it.each(['text/plain', 'application/xml', ';;;'])('answers the content type %s with 415', async (type) => {
    const response = await post({ messages: HI }, type);
    expect(await response.json()).toMatchObject({ error: { code: 'unsupported_media_type' } });
    expect(response.status).toBe(415);
  });

  it('refuses values for the template that are nested too deep to walk', async () => {
    const deep = '['.repeat(20_000) + ']'.repeat(20_000);
    const places = [
      [`{"messages":[{"role":"user","content":"hi"}],"chat_template_kwargs":{"a":${deep}}}`, 'chat_template_kwargs'],
      [`{"messages":[{"role":"assistant","tool_calls":${deep}}]}`, 'messages[0].tool_calls'],
    ] as const;
    for (const [body, param] of places) {
      const answer = await post(body);
      expect([answer.status, await answer.json()]).toMatchObject([400, { error: { param, code: 'invalid_value' } }]);
    }
  });

  it('renders a call without words by a template that knows of none', async () => {
    const call = { id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } };
    const messages = [
      ...CAPITAL.messages,
      { role: 'assistant', content: null, tool_calls: [call] },
      { role: 'tool', tool_call_id: 'c', content: 'Paris' },
    ];
    const answer = await post({ ...CAPITAL, messages, max_tokens: 1 });
    expect([answer.status, await answer.json()]).toMatchObject([200, { object: 'chat.completion' }]);
  });

  it('answers what is no HTTP in the same shape, and closes', async () => {
    for (const [bytes, status] of [
      ['\u0000\u0001\r\n\r\n', 400],
      [`POST ${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n{}`, 400],
      [`GET / HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(40_000)}\r\n\r\n`, 431],
    ] as const) {
      const answer = await rawAnswer(bytes);
      expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
      const body = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n')));
      expect(body).toMatchObject({
        error: { type: 'invalid_request_error', message: expect.stringMatching(/^Cannot/) },
      });
    }
    const wrongAddress = await fetch(url('/%ff%zz'));
    expect([wrongAddress.status, await wrongAddress.json()]).toMatchObject([400, { error: { param: null } }]);
  });

  it('frees the sequence and its KV blocks when the client leaves mid-stream', async () => {
    const before = await metric('sequences_cancelled_total');
    for (let i = 0; i < 6; i++) await sendAndLeave(ENDLESS, 'at the first bytes');
    expect(await untilIdle()).toBe(0);
    expect(await metric('sequences_cancelled_total')).toBe(before + 6);
  });

  it.each([true, false])('and when it leaves during prefill (stream: %s)', async (stream) => {
    const before = await metric('sequences_cancelled_total');
    const long = { ...ENDLESS, messages: [{ role: 'user', content: 'word '.repeat(1900) }], stream };
    for (let i = 0; i < 3; i++) await sendAndLeave(long, 'before any');
    expect(await untilIdle()).toBe(0);
    expect(await metric('sequences_cancelled_total')).toBe(before + 3);
  });

  /** Clients that ask for answers without end and do not read them. */
  async function deafClients(count: number) {
    const body = JSON.stringify({ ...ENDLESS, logprobs: true, top_logprobs: 20 });
    const sockets = Array.from({ length: count }, () => {
      const socket = connect(server.port, '127.0.0.1');
      socket.pause();
      socket.on('error', () => undefined);
      socket.write(`POST ${CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n`);
      socket.write(`Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
      return socket;
    });
    while ((await metric('sequences_open')) < count);
    return () => {
      for (const socket of sockets) socket.destroy();
    };
  }

  it('holds a bounded answer for readers that do not read, and serves the others', async () => {
    const leave = await deafClients(3);
    expect(await (await post(CAPITAL)).text()).toContain('Paris');
    leave();
    expect(await untilIdle()).toBe(0);
  });

  it('answers each of 200 requests at once: with an answer, or with 429 and when to come back', async () => {
    // All places are taken, so that as many wait as may, however fast answers are.
    const leave = await deafClients(4);
    const posted = Array.from({ length: 200 }, () => post({ ...CAPITAL, max_tokens: 12 }));
    const refused = await Promise.race(posted);
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '2']);
    while ((await metric('sequences_queued')) < 32);
    leave();
    const responses = await Promise.all(posted);
    const texts = await Promise.all(responses.map((response) => response.text()));
    const statuses = responses.map(({ status }) => status);
    expect(new Set(statuses)).toEqual(new Set([200, 429]));
    for (const [i, { status, headers }] of responses.entries()) {
      if (status === 200) expect(texts[i]).toContain('Paris');
      else expect([headers.get('retry-after'), texts[i]]).toEqual(['2', expect.stringContaining('queue_full')]);
    }
    expect(await untilIdle()).toBe(0);
  });

  it('answers an expert that cannot be read with 500 or an error event, and stays', async () => {
    const failing = await realServer({ faultRanges: [[0, 1 << 30]] });
    try {
      for (const stream of [false, true]) {
        const response = await fetch(`http://127.0.0.1:${failing.port}${CHAT}`, {
          method: 'POST',
          body: JSON.stringify({ ...CAPITAL, stream }),
          headers: { 'content-type': 'application/json' },
        });
        const text = await response.text();
        expect(response.status).toBe(stream ? 200 : 500);
        expect(text).toMatch(/Cannot read expert \d+\/\d+ .*"code":"expert_read_failed"/);
        expect(text).not.toContain('[DONE]');
      }
      expect((await fetch(`http://127.0.0.1:${failing.port}/health`)).status).toBe(200);
    } finally {
      await close(failing);
    }
  });
});
