import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { connectEngine, type EngineWire, workerWire } from '../../src/engine/client.js';
import type { Engine } from '../../src/engine/engine.js';
import type { FromEngine, ToEngine } from '../../src/engine/messages.js';
import { type EngineLine, StepOutput, serveEngine } from '../../src/engine/serve-engine.js';
import type { EngineClient, EngineEvent, EngineInfo } from '../../src/engine/types.js';
import { type FakeEngineOptions, fakeEngine, toyOffset, toyRequest } from '../helpers/fake-engine.js';
import type { FakeNativeEngine } from '../helpers/fake-native-engine.js';

const INFO = { modelName: 'toy' } as EngineInfo;
const ports: MessagePort[] = [];
afterEach(() => {
  for (const port of ports.splice(0)) port.close();
});

const portLine = <Out, In>(port: MessagePort) => ({
  postMessage: (message: Out, transfer?: readonly ArrayBuffer[]) => port.postMessage(message, [...(transfer ?? [])]),
  on: (_: 'message', listener: (message: In) => void) => port.on('message', listener),
  off: (_: 'message', listener: (message: In) => void) => port.off('message', listener),
});

/** A client and an engine over the fake native half, each at its end of a channel, in one thread. */
async function connected(options: FakeEngineOptions = {}): Promise<{
  client: EngineClient;
  engine: Engine;
  native: FakeNativeEngine;
  sent: FromEngine[];
  gone: (cause: unknown) => void;
}> {
  const { port1, port2 } = new MessageChannel();
  ports.push(port1, port2);
  const sent: FromEngine[] = [];
  const inner = portLine<FromEngine, ToEngine>(port2);
  const line: EngineLine = {
    ...inner,
    postMessage: (message, transfer) => {
      sent.push(message);
      inner.postMessage(message, transfer);
    },
  };
  const output = new StepOutput(line);
  const { engine, native } = fakeEngine(options, output);
  let gone = (_: unknown): void => {};
  const wire: EngineWire = {
    ...portLine<ToEngine, FromEngine>(port1),
    onGone: (listener) => {
      gone = listener;
    },
    terminate: async () => {},
  };
  line.postMessage({ kind: 'ready', info: INFO });
  void serveEngine(line, engine, native, output);
  const client = await connectEngine(wire);
  return { client, engine, native, sent, gone: (cause) => gone(cause) };
}

async function collect(events: AsyncIterable<EngineEvent>): Promise<number[]> {
  const tokens: number[] = [];
  for await (const event of events) if (event.kind === 'token') tokens.push(event.tokenId);
  return tokens;
}

/** The same answer without threads or messages. */
function alone(prompt: number, length: number, maxTokens: number | null): number[] {
  const { engine, outcome, runAll } = fakeEngine({ contextLength: 400, kvBlocks: 16 });
  engine.generate(1, toyRequest(prompt, length, maxTokens));
  runAll();
  return outcome(1).tokens;
}

describe('EngineClient.generate()', () => {
  it('hands several answers out as the engine made them, one message a step', async () => {
    const { client, sent } = await connected({ experts: 5 });
    const answers = await Promise.all([1, 2, 3].map((id) => collect(client.generate(toyRequest(id, 10 + id, 12)))));
    expect(answers).toEqual([1, 2, 3].map((id) => alone(id, 10 + id, 12)));
    const batches = sent.filter((message) => message.kind === 'events');
    const { steps } = await client.metrics();
    expect(batches.length).toBeLessThanOrEqual(steps);
    expect(client.info).toEqual(INFO);
    await client.close();
  });

  it('frees the sequence within one step when its reader leaves', async () => {
    const { client, engine } = await connected();
    for await (const event of client.generate(toyRequest(1, 5, 100))) if (event.kind === 'token') break;
    const metrics = await client.metrics();
    expect(metrics).toMatchObject({ sequencesOpen: 0, kvBlocksUsed: 0, requestsCancelled: 0 });
    expect(engine.hasWork).toBe(false);
    await client.close();
  });

  it('returns the usage of the tokens that were read when its reader stops', async () => {
    const { client } = await connected();
    const answer = client.generate(toyRequest(1, 5, 100))[Symbol.asyncIterator]();
    for (let tokens = 0; tokens < 3; ) {
      const next = await answer.next();
      if (next.done !== true && next.value.kind === 'token') ++tokens;
    }
    const wanted = { promptTokens: 5, completionTokens: 3, meanBits: 4, shareBelowFullLevel: 0 };
    expect(await answer.return?.()).toMatchObject({ done: true, value: wanted });
    expect(await answer.return?.()).toMatchObject({ done: true, value: wanted });
    expect(await answer.next()).toMatchObject({ done: true });
    expect(await client.metrics()).toMatchObject({ sequencesOpen: 0, kvBlocksUsed: 0, requestsCancelled: 0 });
    await client.close();
  });

  it('returns the usage also after the last token, and none of what never ran', async () => {
    const { client } = await connected();
    const whole = client.generate(toyRequest(1, 5, 4))[Symbol.asyncIterator]();
    for (let next = await whole.next(); next.done !== true; next = await whole.next());
    expect(await whole.return?.()).toMatchObject({ value: { completionTokens: 4 } });
    // The engine is done before the reader has read: what was not read does not count.
    const ahead = client.generate(toyRequest(1, 5, 4))[Symbol.asyncIterator]();
    await ahead.next();
    while ((await client.metrics()).sequencesOpen > 0);
    expect(await ahead.return?.()).toMatchObject({ value: { promptTokens: 5, completionTokens: 0 } });
    const never = client.generate(toyRequest(1, 5, 4))[Symbol.asyncIterator]();
    expect(await never.return?.()).toEqual({ done: true, value: undefined });
    expect(await never.next()).toEqual({ done: true, value: undefined });
    const refused = client.generate({ ...toyRequest(1, 1, 1), promptIds: [] })[Symbol.asyncIterator]();
    await expect(refused.next()).rejects.toMatchObject({ code: 'INVALID_REQUEST' });
    expect(await refused.return?.()).toEqual({ done: true, value: undefined });
    await client.close();
  });

  it('ends a next() that waits at once when its reader stops, and the sequence after the step', async () => {
    const { client } = await connected({ maxSequences: 1 });
    const running = client.generate(toyRequest(1, 5, 100))[Symbol.asyncIterator]();
    await running.next();
    const waiting = client.generate(toyRequest(2, 5, 100))[Symbol.asyncIterator]();
    const next = waiting.next();
    const ended = waiting.return?.();
    expect(await next).toEqual({ done: true, value: undefined });
    expect(await ended).toMatchObject({ value: { promptTokens: 5, completionTokens: 0, meanBits: 0 } });
    expect(await client.metrics()).toMatchObject({ sequencesOpen: 1, sequencesQueued: 0 });
    await client.close();
    expect(await running.return?.()).toEqual({ done: true, value: undefined });
  });

  it('returns when the engine closes or fails before it has answered', async () => {
    const { client, gone } = await connected();
    const answer = client.generate(toyRequest(1, 5, 100))[Symbol.asyncIterator]();
    await answer.next();
    const ended = answer.return?.();
    gone(new Error('out of memory'));
    expect(await ended).toEqual({ done: true, value: undefined });
    await client.close();
  });

  it('throws CANCELLED when its signal aborts, before and while it runs', async () => {
    const { client } = await connected();
    const controller = new AbortController();
    const answer = client.generate(toyRequest(1, 5, 100), controller.signal);
    const running = (async () => {
      for await (const event of answer) if (event.kind === 'token') controller.abort();
    })();
    await expect(running).rejects.toMatchObject({ code: 'CANCELLED' });
    await expect(collect(client.generate(toyRequest(1, 5, 1), controller.signal))).rejects.toMatchObject({
      code: 'CANCELLED',
    });
    expect(await client.metrics()).toMatchObject({ sequencesOpen: 0, requestsCancelled: 1 });
    await client.close();
  });

  it('ends with the error of the engine, code and details whole, and others go on', async () => {
    const faults = Array.from({ length: 12 }, (_, expert) => [toyOffset(2, expert), toyOffset(2, expert) + 1]).flat();
    const { client } = await connected({ faultRanges: faults });
    await expect(collect(client.generate(toyRequest(1, 5, 5)))).rejects.toMatchObject({
      name: 'MoestroError',
      code: 'EXPERT_READ_FAILED',
      details: { layer: 2, errorName: 'EIO' },
    });
    await expect(collect(client.generate(toyRequest(1, 500, 5)))).rejects.toMatchObject({
      code: 'CONTEXT_LENGTH_EXCEEDED',
      details: { promptTokens: 500, contextLength: 128 },
    });
    expect(await client.metrics()).toMatchObject({ sequencesOpen: 0, readErrors: expect.any(Number) });
    await client.close();
  });

  it('throws QUEUE_FULL when as many wait as may', async () => {
    const { client } = await connected({ maxSequences: 1, maxQueued: 1 });
    const results = await Promise.allSettled([1, 2, 3].map((id) => collect(client.generate(toyRequest(id, 5, 5)))));
    expect(results.map((result) => result.status)).toEqual(['fulfilled', 'fulfilled', 'rejected']);
    expect((results[2] as PromiseRejectedResult).reason).toMatchObject({ code: 'QUEUE_FULL' });
    await client.close();
  });

  it('lets no more than a bounded number of tokens wait for a slow reader', async () => {
    const { client, engine } = await connected({ contextLength: 400, kvBlocks: 16 });
    const answer = client.generate(toyRequest(1, 2, null))[Symbol.asyncIterator]();
    await answer.next();
    while (engine.hasWork) await client.metrics();
    expect((await client.metrics()).tokensDecoded).toBe(255);
    const tokens: number[] = [];
    for (let next = await answer.next(); next.done !== true; next = await answer.next()) {
      if (next.value.kind === 'token') tokens.push(next.value.tokenId);
    }
    expect(tokens).toEqual(alone(1, 2, null).slice(0, 256).concat(tokens.slice(256)));
    expect(tokens).toHaveLength(398);
    await client.close();
  });
});

describe('EngineClient.evaluate(), importance() and metrics()', () => {
  it('answer each request with its own reply', async () => {
    const { client } = await connected();
    const { promptIds } = toyRequest(1, 6, 1);
    const [logits, metrics] = await Promise.all([
      client.evaluate(promptIds, { precision: { mode: 'exact' } }),
      client.metrics(),
    ]);
    expect(logits).toBeInstanceOf(Float32Array);
    expect(logits).toHaveLength(6 * 97);
    expect(metrics.budgetBytes).toBe(1 << 30);
    await expect(client.importance(1, 2)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await client.collectImportance(true);
    expect(await client.importance(1, 2)).toMatchObject({ tokens: 102 });
    await client.close();
  });
});

describe('EngineClient.live()', () => {
  it('is a copy of what is in memory, of every expert', async () => {
    const { client, engine } = await connected();
    await collect(client.generate(toyRequest(1, 6, 4)));
    const live = await client.live();
    const { layers, experts, residentBits } = engine.residency;
    expect(live).toMatchObject({ layers, experts });
    expect([...live.residentBits]).toEqual([...residentBits]);
    expect(live.residentBits).toHaveLength(layers * experts);
    expect(live.residentBits.some((bits) => bits > 0)).toBe(true);
    expect(live.metrics).toMatchObject({ tokensDecoded: 3, tokensPrefilled: 6 });
    await client.close();
  });
});

describe('EngineClient.close()', () => {
  it('ends open requests with ENGINE_CLOSED, closes the native half, and may be called again', async () => {
    const { client, native } = await connected();
    const answer = client.generate(toyRequest(1, 5, 100))[Symbol.asyncIterator]();
    await answer.next();
    const rest = (async () => {
      for (;;) if ((await answer.next()).done) return;
    })();
    await Promise.all([client.close(), client.close(), expect(rest).rejects.toMatchObject({ code: 'ENGINE_CLOSED' })]);
    await client.close();
    expect(native.isClosed).toBe(true);
    await expect(client.metrics()).rejects.toMatchObject({ code: 'ENGINE_CLOSED' });
    await expect(collect(client.generate(toyRequest(1, 5, 1)))).rejects.toMatchObject({ code: 'ENGINE_CLOSED' });
  });
});

describe('EngineClient of an engine that fails', () => {
  it('fails every open and later request with ENGINE_FAILED when a step throws', async () => {
    const { client, native } = await connected();
    const answer = collect(client.generate(toyRequest(1, 5, 100)));
    native.finishLayer = () => {
      throw new TypeError('a broken invariant');
    };
    await expect(answer).rejects.toMatchObject({
      code: 'ENGINE_FAILED',
      message: expect.stringMatching(/a broken invariant/),
    });
    await expect(client.metrics()).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    expect(native.isClosed).toBe(true);
    await client.close();
  });

  it('does the same when its thread is gone without a word', async () => {
    const { client, gone } = await connected();
    const answers = [collect(client.generate(toyRequest(1, 5, 100))), client.evaluate([1, 2])];
    gone(new Error('out of memory'));
    for (const answer of answers) await expect(answer).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    await client.close();
  });

  it('is not handed out when the thread dies or refuses at start', async () => {
    const thread = (code: string) => workerWire(new Worker(code, { eval: true }));
    await expect(connectEngine(thread('process.exit(3)'))).rejects.toMatchObject({
      code: 'ENGINE_FAILED',
      message: expect.stringMatching(/status 3/),
    });
    await expect(connectEngine(thread('throw new RangeError("no such luck")'))).rejects.toMatchObject({
      code: 'ENGINE_FAILED',
      message: expect.stringMatching(/no such luck/),
    });
    const refusal = { code: 'BUDGET_BELOW_FLOOR', message: 'Cannot run', details: { floorBytes: 7 } };
    const code = `require('node:worker_threads').parentPort.postMessage(${JSON.stringify({ kind: 'broken', error: refusal })})`;
    await expect(connectEngine(thread(code))).rejects.toMatchObject(refusal);
  });

  it('fails what is open when a live thread dies', async () => {
    const code = `
      const { parentPort } = require('node:worker_threads');
      parentPort.postMessage({ kind: 'ready', info: {} });
      parentPort.on('message', (message) => { if (message.kind === 'metrics') process.exit(9); });`;
    const client = await connectEngine(workerWire(new Worker(code, { eval: true })));
    const answer = collect(client.generate(toyRequest(1, 5, 1)));
    await expect(client.metrics()).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    await expect(answer).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    await client.close();
  });
});
