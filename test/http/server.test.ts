import type { FastifyInstance } from 'fastify';
import { afterEach, describe, expect, it } from 'vitest';
import { saying, testServer } from './scripted.js';

let open: FastifyInstance[] = [];
afterEach(async () => {
  await Promise.all(open.map((app) => app.close()));
  open = [];
});

async function server(options: Parameters<typeof testServer>[1] = {}): Promise<FastifyInstance> {
  const { app } = await testServer(saying('x'), options);
  open.push(app);
  return app;
}

const BODY = { messages: [{ role: 'user', content: 'hi' }] };

describe('createServer()', () => {
  it('serves each path with and without /v1, and with a trailing slash', async () => {
    const app = await server();
    for (const url of ['/health', '/models', '/models/scripted', '/metrics']) {
      for (const form of [url, `/v1${url}`, `/v1${url}/`, `${url}/`]) {
        expect([form, (await app.inject(form)).statusCode]).toEqual([form, 200]);
      }
    }
    for (const url of ['/chat/completions', '/v1/chat/completions/', '/v1/chat/completions?api-version=1']) {
      expect((await app.inject({ method: 'POST', url, payload: BODY })).statusCode).toBe(200);
    }
  });

  it('answers unknown paths and methods with a JSON error', async () => {
    const app = await server();
    for (const [method, url] of [
      ['GET', '/nowhere?key=1'],
      ['POST', '/v1/images/generations'],
    ] as const) {
      const response = await app.inject({ method, url });
      expect(response.statusCode).toBe(404);
      expect(response.json()).toEqual({
        error: {
          message: `Cannot find ${method} ${url.replace('?key=1', '')}`,
          type: 'not_found_error',
          param: null,
          code: 'not_found',
        },
      });
    }
  });

  it('answers methods that a path does not have with 405 and those that it has', async () => {
    const app = await server();
    for (const [method, url, allow] of [
      ['GET', '/v1/chat/completions', 'POST'],
      ['PUT', '/completions/', 'POST'],
      ['POST', '/v1/models', 'GET, HEAD'],
      ['DELETE', '/v1/models/org/any', 'GET, HEAD'],
    ] as const) {
      const response = await app.inject({ method, url });
      expect([url, response.statusCode, response.headers.allow]).toEqual([url, 405, allow]);
      expect(response.json().error).toMatchObject({ type: 'invalid_request_error', code: 'method_not_allowed' });
    }
  });

  it('answers bodies that are too large or not JSON with 413 and 415', async () => {
    const app = await server({ config: { bodyLimitBytes: 100 } });
    const post = (payload: string, type: string) =>
      app.inject({ method: 'POST', url: '/v1/completions', payload, headers: { 'content-type': type } });
    const large = await post(JSON.stringify({ prompt: 'x'.repeat(200) }), 'application/json');
    expect([large.statusCode, large.json().error]).toMatchObject([413, { code: 'body_too_large' }]);
    const form = await post('prompt=x', 'application/x-www-form-urlencoded');
    expect([form.statusCode, form.json().error]).toMatchObject([415, { type: 'invalid_request_error' }]);
  });

  it('takes bodies of 32 MiB by default', async () => {
    const app = await server();
    const payload = { ...BODY, metadata: 'x'.repeat(30 << 20) };
    expect((await app.inject({ method: 'POST', url: '/v1/chat/completions', payload })).statusCode).toBe(200);
  });

  it('lets any key in when none is configured', async () => {
    const app = await server();
    for (const authorization of ['Bearer ', 'Bearer anything', 'Basic eDp5']) {
      expect((await app.inject({ url: '/v1/models', headers: { authorization } })).statusCode).toBe(200);
    }
  });

  it('asks for one of the keys when some are configured, but for health', async () => {
    const app = await server({ config: { apiKeys: ['first-key', 'second'] } });
    const status = async (headers: Record<string, string>, url = '/v1/models') =>
      (await app.inject({ url, headers })).statusCode;
    expect(await status({ authorization: 'Bearer first-key' })).toBe(200);
    expect(await status({ authorization: 'bearer second' })).toBe(200);
    expect(await status({ 'x-api-key': 'second' })).toBe(200);
    expect(await status({ authorization: 'Bearer', 'x-api-key': 'first-key' })).toBe(200);
    expect(await status({ authorization: 'Bearer first-ke' })).toBe(401);
    expect(await status({ authorization: 'Bearer third' })).toBe(401);
    expect(await status({})).toBe(401);
    expect(await status({}, '/metrics')).toBe(401);
    expect(await status({}, '/v1/nowhere')).toBe(401);
    for (const url of ['/health', '/v1/health', '/health/live', '/health/ready'])
      expect(await status({}, url)).toBe(200);
    const refused = await app.inject({ url: '/v1/models', headers: { authorization: 'Bearer nope' } });
    expect(refused.json().error).toMatchObject({ type: 'authentication_error', code: 'invalid_api_key' });
    expect(refused.body).not.toContain('nope');
  });

  it('answers only under its own names', async () => {
    const app = await server();
    const status = async (host: string) => (await app.inject({ url: '/v1/models', headers: { host } })).statusCode;
    expect(await Promise.all(['localhost:1', '127.0.0.1', 'evil.example'].map(status))).toEqual([200, 200, 403]);
  });

  it('serves the page without a key, with a policy that lets nothing in from elsewhere', async () => {
    const app = await server({ config: { apiKeys: ['k'] } });
    for (const [url, type] of [
      ['/', 'text/html; charset=utf-8'],
      ['/ui/style.css', 'text/css; charset=utf-8'],
      ['/ui/main.js', 'text/javascript; charset=utf-8'],
    ] as const) {
      const { statusCode, headers } = await app.inject(url);
      expect([url, statusCode, headers['content-type']]).toEqual([url, 200, type]);
      expect(headers['content-security-policy']).toMatch(/^default-src 'none'; script-src 'self';/);
      expect(headers['x-content-type-options']).toBe('nosniff');
    }
    expect((await app.inject('/ui/')).headers.location).toBe('/');
    expect((await app.inject('/ui/../package.json')).statusCode).toBe(401);
    expect((await app.inject('/v1/moestro/live')).statusCode).toBe(401);
  });

  it('tells the moment, and asks the engine once for many that look', async () => {
    const { app, engine } = await testServer(saying('x'));
    open.push(app);
    const { live } = engine;
    let asked = 0;
    engine.live = () => {
      asked++;
      return live();
    };
    const looks = await Promise.all([1, 2, 3].map(() => app.inject('/v1/moestro/live')));
    const [first] = looks.map((look) => look.json());
    expect(first).toMatchObject({ model: 'scripted', layers: 3, experts: 3, level: 8, reads_in_flight: 1 });
    expect([...Buffer.from(first.resident_bits, 'base64')]).toEqual([8, 8, 8, 2, 0, 0, 8, 8, 8]);
    // 20 MiB hold 7 of 9 experts.
    expect(first.enough_bytes).toBe(Math.round((76 + (20 * 9) / 7) * (1 << 20)));
    expect(asked).toBe(1);
  });

  it('writes a line of JSON for each answer, with the id that the answer carries', async () => {
    const lines: string[] = [];
    const log = { write: (line: string) => void lines.push(line) };
    const { app } = await testServer(saying('x'), { config: { logLevel: 'info' }, log });
    open.push(app);
    await app.inject({ url: '/v1/models', headers: { 'x-request-id': 'mine-1' } });
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { reqId: 'mine-1', method: 'GET', route: '/models', status: 200, ms: expect.any(Number), msg: 'answered' },
    ]);
  });

  it('answers preflights of local pages with 204 and the headers they ask for, before any key', async () => {
    const app = await server({ config: { apiKeys: ['k'], corsOrigins: ['https://chat.example'] } });
    const asked = 'authorization,content-type,x-stainless-os,x-api-key,anthropic-version';
    const preflight = (origin: string) =>
      app.inject({
        method: 'OPTIONS',
        url: '/v1/chat/completions',
        headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': asked },
      });
    for (const origin of ['http://localhost:5173', 'http://127.0.0.1:3000', 'https://chat.example']) {
      const response = await preflight(origin);
      expect(response.statusCode).toBe(204);
      expect(response.headers['access-control-allow-origin']).toBe(origin);
      expect(response.headers['access-control-allow-headers']).toBe(asked);
    }
    const stranger = await preflight('https://evil.example');
    expect(stranger.headers['access-control-allow-origin']).toBeUndefined();
    const lookalike = await preflight('http://localhost.evil.example');
    expect(lookalike.headers['access-control-allow-origin']).toBeUndefined();
  });

  it('sends CORS headers on streams too', async () => {
    const app = await server({ config: { corsOrigins: ['*'] } });
    const response = await app.inject({
      method: 'POST',
      url: '/v1/chat/completions',
      headers: { origin: 'https://any.example' },
      payload: { ...BODY, stream: true },
    });
    expect(response.headers['access-control-allow-origin']).toBe('*');
    expect(response.headers['access-control-expose-headers']).toContain('x-request-id');
  });

  it('names each request and its time, keeping a name the client gave', async () => {
    const app = await server();
    const own = await app.inject('/v1/models');
    expect(own.headers['x-request-id']).toMatch(/^req_[0-9a-f]{24}$/);
    expect(own.headers['openai-processing-ms']).toMatch(/^\d+$/);
    const stream = await app.inject({
      method: 'POST',
      url: '/v1/chat/completions',
      payload: { ...BODY, stream: true },
    });
    expect(stream.headers['x-request-id']).toMatch(/^req_/);
    expect(stream.headers['openai-processing-ms']).toMatch(/^\d+$/);
    const unreadable = await app.inject('/%ff%zz');
    expect([unreadable.statusCode, unreadable.headers['x-request-id']]).toEqual([400, expect.stringMatching(/^req_/)]);
    const given = await app.inject({ url: '/v1/models', headers: { 'x-request-id': 'mine-1' } });
    expect(given.headers['x-request-id']).toBe('mine-1');
    const forged = await app.inject({ url: '/v1/models', headers: { 'x-request-id': 'a b"c' } });
    expect(forged.headers['x-request-id']).toMatch(/^req_/);
  });

  it('lists the model and finds it by its id only', async () => {
    const app = await server();
    const list = (await app.inject('/v1/models')).json();
    expect(list).toEqual({ object: 'list', data: [expect.objectContaining({ id: 'scripted', object: 'model' })] });
    expect(list.data[0]).toMatchObject({ created: 1_700_000_000, owned_by: 'moestro', context_length: 512 });
    expect((await app.inject('/v1/models/scripted')).json().id).toBe('scripted');
    const other = await app.inject('/v1/models/org/other');
    expect([other.statusCode, other.json().error]).toEqual([
      404,
      {
        message: 'Cannot find the model "org/other": needed "scripted"',
        type: 'not_found_error',
        param: 'model',
        code: 'model_not_found',
      },
    ]);
  });

  it('tells health: loading with 503, then ok', async () => {
    const loading = await (await server({ isLoading: true })).inject('/health');
    expect([loading.statusCode, loading.json()]).toEqual([503, { status: 'loading' }]);
    const ready = await (await server()).inject('/health');
    expect([ready.statusCode, ready.json()]).toEqual([200, { status: 'ok' }]);
    const early = await server({ isLoading: true });
    expect((await early.inject('/health/live')).statusCode).toBe(200);
    expect((await early.inject('/health/ready')).headers['retry-after']).toBe('2');
    expect((await (await server()).inject('/v1/health/ready/')).statusCode).toBe(200);
  });

  it('tells the counters of engine and HTTP under stable names', async () => {
    const app = await server();
    await app.inject({ method: 'POST', url: '/v1/chat/completions', payload: BODY });
    await app.inject({ method: 'POST', url: '/chat/completions', payload: {} });
    await app.inject('/nowhere');
    const response = await app.inject('/metrics');
    expect(response.headers['content-type']).toContain('text/plain; version=0.0.4');
    const lines = new Set(response.body.split('\n'));
    for (const line of [
      'moestro_expert_hits_total 14',
      'moestro_expert_misses_total 15',
      'moestro_missed_bytes_total 16',
      'moestro_read_bytes_total 17',
      'moestro_prefetch_bytes_total 27',
      'moestro_prefetch_useful_bytes_total 28',
      'moestro_prefetch_wasted_bytes_total 30',
      'moestro_stall_seconds_total 1.8',
      'moestro_tokens_total{phase="prefill"} 11',
      'moestro_tokens_total{phase="decode"} 12',
      'moestro_resident_experts{bits="2"} 1',
      'moestro_resident_experts{bits="8"} 6',
      'moestro_memory_budget_bytes 104857600',
      'moestro_memory_rss_bytes 94371840',
      'moestro_memory_peak_rss_bytes 99614720',
      'moestro_memory_plan_bytes{part="kv"} 5242880',
      'moestro_kv_blocks_used 2',
      'moestro_sequences_open 1',
      'moestro_sequences_cancelled_total 3',
      'moestro_model_info{model="scripted",family="qwen3_moe",level="8",mode="exact",isa="scalar",io="fake"} 1',
      'moestro_http_requests_total{route="/chat/completions",status="200"} 1',
      'moestro_http_requests_total{route="/chat/completions",status="400"} 1',
      'moestro_http_requests_total{route="unknown",status="404"} 1',
    ]) {
      expect(lines).toContain(line);
    }
  });

  it('tells what HTTP counts while the model loads', async () => {
    const response = await (await server({ isLoading: true })).inject('/metrics');
    expect(response.statusCode).toBe(200);
    expect(response.body).toContain('# TYPE moestro_http_requests_total counter');
    expect(response.body).not.toContain('moestro_expert_hits_total');
  });
});

describe('/v1/moestro/budget', () => {
  it('tells where the memory is and takes a new budget in words or bytes', async () => {
    const app = await server();
    const told = await app.inject({ url: '/v1/moestro/budget' });
    expect(told.json()).toMatchObject({
      object: 'moestro.budget',
      budget_bytes: 100 << 20,
      allowed_bytes: 100 << 20,
      floor_bytes: 60 << 20,
      settled: true,
      parts: { experts: 40 << 20 },
    });
    const set = async (budget: unknown) =>
      (await app.inject({ method: 'POST', url: '/v1/moestro/budget', payload: { budget } })).json();
    expect(await set('80MiB')).toMatchObject({ budget_bytes: 80 << 20 });
    expect(await set(90 << 20)).toMatchObject({ budget_bytes: 90 << 20 });
    expect(await set('auto')).toMatchObject({ budget_bytes: 100 << 20 });
  });

  it('asks for a key as the other routes do, and for a budget it understands', async () => {
    const app = await server({ config: { apiKeys: ['k'] } });
    const post = (payload: object, headers = {}) =>
      app.inject({ method: 'POST', url: '/v1/moestro/budget', payload, headers });
    expect((await post({ budget: '80MiB' })).statusCode).toBe(401);
    const key = { authorization: 'Bearer k' };
    expect((await post({}, key)).statusCode).toBe(400);
    expect((await post({ budget: -5 }, key)).statusCode).toBe(400);
    expect((await post({ budget: '80MiB' }, key)).statusCode).toBe(200);
  });
});
