/** What one key may ask for, over time that passes when the test says so, and through the server's routes. */
import { describe, expect, it } from 'vitest';
import { KeyLimiter } from '../../src/http/key-limits.js';
import { codeOf } from '../helpers/code-of.js';
import { saying, testServer } from './scripted.js';

const body = { messages: [{ role: 'user', content: 'Hello' }], max_tokens: 2 };

describe('KeyLimiter', () => {
  it('lets a minute’s worth in at once, then as many as time brings, each key by itself', () => {
    let now = 0;
    const limiter = new KeyLimiter(() => now);
    const limits = { requestsPerMinute: 6, atOnce: null };
    const admit = (key: string) => codeOf(() => limiter.admit(key, limits).release());
    expect(Array.from({ length: 7 }, () => admit('a'))).toEqual([...Array(6).fill(null), 'RATE_LIMITED']);
    expect(admit('b')).toBeNull();
    now += 9_000;
    expect(admit('a')).toBe('RATE_LIMITED');
    now += 1_500;
    expect([admit('a'), admit('a')]).toEqual([null, 'RATE_LIMITED']);
    now += 3_600_000;
    expect(Array.from({ length: 7 }, () => admit('a')).filter((code) => code === null)).toHaveLength(6);
  });

  it('counts what is under way once, however often it is told that it has ended', () => {
    const limiter = new KeyLimiter(() => 0);
    const limits = { requestsPerMinute: null, atOnce: 2 };
    const first = limiter.admit('a', limits);
    limiter.admit('a', limits);
    expect(codeOf(() => limiter.admit('a', limits))).toBe('RATE_LIMITED');
    first.release();
    first.release();
    limiter.admit('a', limits);
    expect(codeOf(() => limiter.admit('a', limits))).toBe('RATE_LIMITED');
  });
});

describe('limits of keys', () => {
  const config = {
    apiKeys: ['small', 'large'],
    keyLimits: { requestsPerMinute: null, atOnce: null, byKey: new Map([['small', { requestsPerMinute: 2 }]]) },
  };

  it('answer 429 with the seconds to wait, and leave other keys alone', async () => {
    const { app } = await testServer(saying('Hi'), { config });
    const ask = (key: string) =>
      app.inject({
        method: 'POST',
        url: '/v1/chat/completions',
        headers: { authorization: `Bearer ${key}` },
        payload: body,
      });
    const first = await ask('small');
    expect(first.statusCode).toBe(200);
    expect(first.headers).toMatchObject({ 'x-ratelimit-limit-requests': '2', 'x-ratelimit-remaining-requests': '1' });
    await ask('small');
    const refused = await ask('small');
    expect(refused.statusCode).toBe(429);
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(20);
    expect(refused.json().error).toMatchObject({ type: 'rate_limit_error', code: 'rate_limit_exceeded' });
    const looked = await app.inject({ url: '/v1/models', headers: { authorization: 'Bearer small' } });
    expect(looked.statusCode).toBe(200);
    const other = await ask('large');
    expect([other.statusCode, other.headers['x-ratelimit-limit-requests']]).toEqual([200, undefined]);
    await app.close();
  });
});
