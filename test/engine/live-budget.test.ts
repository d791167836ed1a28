/**
 * The budget changes while the real engine answers: no request fails, exact answers stay the same tokens, and the slots
 * that are left hold the experts that answers are computed with.
 */
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { engineConfig } from '../../src/config.js';
import { startEngine } from '../../src/engine/client.js';
import type { MemoryState } from '../../src/engine/engine-metrics.js';
import { type EngineClient, GREEDY } from '../../src/engine/types.js';

const POCKET = fileURLToPath(new URL('../../models/pocket.moe', import.meta.url));
const MIB = 1 << 20;
const STREAMS = 8;
const TOKENS = 48;

const prompt = (stream: number): number[] => Array.from({ length: 24 }, (_, i) => 40 + ((stream * 97 + i * 31) % 3000));

async function answersOf(client: EngineClient, onToken: (count: number) => Promise<void> | void): Promise<number[][]> {
  let count = 0;
  const answer = async (stream: number): Promise<number[]> => {
    const tokens: number[] = [];
    const request = { promptIds: prompt(stream), maxTokens: TOKENS, stopTokenIds: [], sampling: GREEDY };
    for await (const event of client.generate(request)) {
      if (event.kind !== 'token') continue;
      tokens.push(event.tokenId);
      await onToken(++count);
    }
    return tokens;
  };
  return Promise.all(Array.from({ length: STREAMS }, (_, stream) => answer(stream)));
}

const open = (): Promise<EngineClient> =>
  startEngine(engineConfig(POCKET, { budget: '2GiB', threads: 2, maxSequences: STREAMS, context: 128 }, {}));

/** The state once memory has been given back; the engine works at it while nothing is asked. */
async function settled(client: EngineClient): Promise<MemoryState> {
  for (;;) {
    const state = await client.memory();
    if (state.isSettled) return state;
  }
}

describe('EngineClient.memory()', () => {
  let reference: number[][];
  beforeAll(async () => {
    const client = await open();
    reference = await answersOf(client, () => {});
    await client.close();
    expect(reference.flat()).toHaveLength(STREAMS * TOKENS);
  });

  it('shrinks to the floor and restores while streams run: exact answers unchanged, slots follow', async () => {
    const client = await open();
    const whole = await client.memory();
    const slots: number[] = [];
    const answers = await answersOf(client, async (count) => {
      if (count === 100) {
        const { floorBytes } = await client.memory();
        await client.memory(floorBytes + MIB);
      }
      if (count === 200) slots.push((await client.metrics()).slotsTotal);
      if (count === 250) await client.memory(whole.budgetBytes);
    });
    slots.push((await client.metrics()).slotsTotal);
    const state = await settled(client);
    expect(answers).toEqual(reference);
    // A megabyte above the floor holds few of the 256 experts of 8 bits.
    expect(slots[0]).toBeLessThan(512);
    expect(slots[1]).toBe(2048);
    expect(state).toMatchObject({ budgetBytes: whole.budgetBytes, allowedBytes: whole.budgetBytes });
    expect(state.shedExperts).toBeGreaterThan(100);
    expect(state.givenBackBytes).toBeGreaterThan(5 * MIB);
    await client.close();
  });

  it('gives what it drops back to the system: RSS falls by as much', async () => {
    const client = await open();
    await answersOf(client, () => {});
    const before = await settled(client);
    await client.memory(before.floorBytes + MIB);
    const after = await settled(client);
    const given = after.givenBackBytes - before.givenBackBytes;
    expect(given).toBeGreaterThan(8 * MIB);
    // Heaps of this process breathe meanwhile.
    expect(before.rssBytes - after.rssBytes).toBeGreaterThan(given - 6 * MIB);
    expect(before.parts.experts - after.parts.experts).toBeGreaterThan(8 * MIB);
    await client.close();
  });

  it('answers the same while the budget changes at random with every few tokens', async () => {
    const client = await open();
    let random = 12_345;
    const answers = await answersOf(client, async (count) => {
      if (count % 5 !== 0) return;
      random = (random * 48_271) % 0x7fffffff;
      // It rises with the heaps of this process.
      const { floorBytes } = await client.memory();
      await client.memory(floorBytes + 4 * MIB + (random % (24 * MIB)));
    });
    expect(answers).toEqual(reference);
    expect((await client.memory()).resizes).toBeGreaterThan(20);
    await client.close();
  });

  it('refuses a budget below the floor with both numbers', async () => {
    const client = await open();
    const { floorBytes } = await client.memory();
    await expect(client.memory(50 * MIB)).rejects.toMatchObject({
      code: 'BUDGET_BELOW_FLOOR',
      details: { budgetBytes: 50 * MIB, floorBytes },
    });
    await client.close();
  });
});
