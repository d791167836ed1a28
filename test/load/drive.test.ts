import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { driveLoad } from '../../src/load/drive.js';
import { loadFigures, spread } from '../../src/load/figures.js';
import { promptOfWords } from '../../src/load/prompts.js';
import { type StreamedAnswer, streamAnswer } from '../../src/load/streamed-answer.js';

let server: Server | null = null;
afterEach(async () => {
  await new Promise((resolve) => (server === null ? resolve(null) : server.close(resolve)));
  server = null;
});

async function listen(handler: RequestListener): Promise<URL> {
  server = createServer(handler);
  await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve));
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/chat/completions`);
}

/** A clock that is one later at each look. */
const counting = () => {
  let now = 0;
  return () => ++now;
};

const delta = (text: string, finish: string | null = null) =>
  `data: ${JSON.stringify({ choices: [{ delta: { content: text }, finish_reason: finish }] })}\n\n`;
const ask = (url: URL, more = {}) => streamAnswer({ url, body: { a: 1 }, apiKey: 'k', ...more }, counting());

describe('streamAnswer()', () => {
  it('tells when each text came, however the bytes are cut, and what the server counted', async () => {
    const seen: unknown[] = [];
    const url = await listen((request, response) => {
      seen.push(request.headers.authorization, request.headers['content-type']);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const usage = 'data: {"choices":[],"usage":{"completion_tokens":7}}\n\n';
      const bytes = `: ping\n\n${delta('')}${delta('a')}${delta('é')}${delta('', 'stop')}${usage}data: [DONE]\n\n`;
      for (const byte of Buffer.from(bytes)) response.write(Buffer.of(byte));
      response.end();
    });
    expect(await ask(url)).toEqual({
      status: 200,
      retryAfterSeconds: null,
      timesMs: [1, 2],
      completionTokens: 7,
      finishReason: 'stop',
      error: null,
      code: null,
    });
    expect(seen).toEqual(['Bearer k', 'application/json']);
  });

  it.each<[string, RequestListener, Partial<StreamedAnswer>]>([
    [
      'is turned away',
      (_, response) => {
        response.writeHead(429, { 'retry-after': '3' });
        response.end('{"error":{"message":"full","code":"queue_full"}}');
      },
      { status: 429, retryAfterSeconds: 3, error: 'full', code: 'queue_full' },
    ],
    [
      'fails in the middle',
      (_, response) => {
        response.writeHead(200);
        response.end(`${delta('a')}data: {"error":{"message":"disk","code":"expert_read_failed"}}\n\n`);
      },
      { status: 200, timesMs: [1], error: 'disk', code: 'expert_read_failed' },
    ],
    [
      'ends without an end',
      (_, response) => response.end(delta('a')),
      { status: 200, error: 'the stream ended before the answer did' },
    ],
    ['is cut off', (request) => request.socket.destroy(), { status: 0, error: 'socket hang up' }],
  ])('says so when the answer %s', async (_what, handler, answer) => {
    expect(await ask(await listen(handler))).toMatchObject(answer);
  });

  it('lets a client leave, and read at its own pace', async () => {
    let closed = 0;
    const url = await listen((_, response) => {
      response.on('close', () => ++closed);
      response.write(delta('a'));
    });
    const leaving = new AbortController();
    const answer = await ask(url, { signal: leaving.signal, onText: () => leaving.abort() });
    expect(answer).toMatchObject({ status: 200, timesMs: [1] });
    expect(answer.error).toBe('the client has left');
    await expect.poll(() => closed).toBe(1);
  });
});

describe('driveLoad()', () => {
  it('makes all requests, so many at once, and comes back when it was told to', async () => {
    let open = 0;
    let most = 0;
    let turnedAway = 0;
    const bodies: string[] = [];
    const url = await listen((request, response) => {
      most = Math.max(most, ++open);
      response.on('close', () => --open);
      let body = '';
      request.on('data', (data) => (body += data));
      request.on('end', () => {
        if (turnedAway === 0) {
          ++turnedAway;
          response.writeHead(429, { 'retry-after': '5' }).end('{}');
          return;
        }
        bodies.push(body);
        setImmediate(() => response.end(delta('a', 'stop')));
      });
    });
    const waited: number[] = [];
    const clock = {
      now: () => performance.now(),
      sleep: async (ms: number) => {
        waited.push(ms);
      },
    };
    const plan = {
      url,
      apiKey: null,
      streams: 3,
      requests: 7,
      seconds: Number.POSITIVE_INFINITY,
      body: (index: number) => ({ index }),
    };
    let told = 0;
    const answers = await driveLoad(plan, clock, () => ++told);
    expect(answers).toHaveLength(8);
    expect(told).toBe(8);
    expect(most).toBeLessThanOrEqual(3);
    expect(waited).toEqual([5000]);
    expect(bodies.map((body) => (JSON.parse(body) as { index: number }).index).sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(loadFigures(answers, 2)).toMatchObject({
      answered: 7,
      rejected: 1,
      failed: 0,
      statuses: { 200: 7, 429: 1 },
      tokens: 7,
      tokensPerSecond: 3.5,
    });
  });
});

describe('driveLoad() without a server', () => {
  it('waits between requests instead of asking without end', async () => {
    const url = await listen(() => {});
    await new Promise((resolve) => server!.close(resolve));
    server = null;
    const waited: number[] = [];
    const clock = {
      now: () => performance.now(),
      sleep: async (ms: number) => {
        waited.push(ms);
      },
    };
    const plan = { url, apiKey: null, streams: 1, requests: 3, seconds: Number.POSITIVE_INFINITY, body: () => ({}) };
    const answers = await driveLoad(plan, clock, () => {});
    expect(loadFigures(answers, 1)).toMatchObject({ answered: 0, failed: 3, statuses: { 0: 3 } });
    expect(waited).toEqual([1000, 1000]);
  });
});

describe('spread()', () => {
  it('gives values that occurred', () => {
    expect(spread(Array.from({ length: 100 }, (_, i) => 100 - i))).toEqual({ p50: 50, p90: 90, p99: 99, max: 100 });
    expect(spread([7])).toEqual({ p50: 7, p90: 7, p99: 7, max: 7 });
    expect(spread([])).toBeNull();
  });
});

describe('promptOfWords()', () => {
  it('draws so many words, the same from the same seed', () => {
    expect(promptOfWords(30, 4).split(' ')).toHaveLength(30);
    expect(promptOfWords(30, 4)).toBe(promptOfWords(30, 4));
    expect(promptOfWords(30, 4)).not.toBe(promptOfWords(30, 5));
  });
});
