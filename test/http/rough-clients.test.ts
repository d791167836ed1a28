/** A short run of bench/load.ts: clients that leave, read slowly and send nonsense take nothing with them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RoughTally, runRoughClients } from '../../bench/rough-clients.js';
import { POLLED, type Served, servePocket } from '../conformance/served.js';

const REQUESTS = 600;

let served: Served;
let tally: RoughTally;
beforeAll(async () => {
  served = await servePocket({ maxSequences: 4, maxQueued: 16 });
  let begun = 0;
  tally = await runRoughClients({
    url: new URL(`${served.baseURL}/chat/completions`),
    clients: 60,
    seed: 3,
    tokensMax: 12,
    isOver: () => ++begun > REQUESTS,
    now: () => performance.now(),
    // Pauses as short as they can be: it is the order of events that counts.
    sleep: (ms) => sleep(Math.min(ms, 5)),
    pauseMsMax: 5,
  });
}, 120_000);
afterAll(() => served.close());

const count = (pattern: RegExp): number =>
  Object.entries(tally.statuses).reduce((sum, [name, times]) => (pattern.test(name) ? sum + times : sum), 0);

describe('a server under rough clients', () => {
  it('answers what is right, refuses what is wrong, turns away what is too much, and never fails', () => {
    expect(tally.wrong).toEqual([]);
    expect(tally.requests).toBe(REQUESTS);
    expect(count(/^(reader|slow|whole) 200$/)).toBeGreaterThan(50);
    expect(count(/ 429$/)).toBeGreaterThan(0);
    expect(count(/^malformed 4/)).toBeGreaterThan(10);
  });

  it('holds nothing of those that are gone', async () => {
    for (const name of ['sequences_open', 'sequences_queued', 'kv_blocks_used', 'reads_in_flight']) {
      await expect.poll(() => served.metric(`moestro_${name}`), POLLED).toBe(0);
    }
    // Short answers may all have been faster than those who left them: this one is not.
    const leaving = new AbortController();
    const body = { messages: [{ role: 'user', content: 'Tell me' }], stream: true, ignore_eos: true, max_tokens: 1500 };
    await served.post('/v1/chat/completions', body, { signal: leaving.signal });
    leaving.abort();
    await expect.poll(() => served.metric('moestro_sequences_cancelled_total'), POLLED).toBeGreaterThan(0);
    await expect.poll(() => served.metric('moestro_sequences_open'), POLLED).toBe(0);
  });

  it('answers the next request as if nothing had been', async () => {
    const body = { messages: [{ role: 'user', content: 'What is the capital of France?' }], temperature: 0 };
    expect(await (await served.post('/v1/chat/completions', body)).text()).toContain('Paris');
  });
});
