import { describe, expect, it } from 'vitest';
import type { AnswerEvent, AnswerOptions } from '../src/answer/types.js';
import { samplingConfig } from '../src/config.js';
import { GREEDY } from '../src/engine/types.js';
import { TextGenerator } from '../src/generate.js';
import { byteText, gate, type Script, saying, scriptedEngine, tokenEvent } from './http/scripted.js';

const defaults = samplingConfig({}, {}).sampling;
const OPTIONS: AnswerOptions = { maxTokens: null, stop: [], sampling: GREEDY };

function generatorOf(script: Script, capacity = 4) {
  const engine = scriptedEngine(script);
  return { engine, generator: new TextGenerator(engine, byteText, { capacity, defaults }) };
}

async function eventsOf(generator: TextGenerator, options: Partial<AnswerOptions> = {}): Promise<AnswerEvent[]> {
  const jobs = [{ promptIds: [1, 2, 3], options: { ...OPTIONS, ...options } }];
  const events: AnswerEvent[] = [];
  for await (const { value } of generator.start(jobs, new AbortController().signal)) events.push(value);
  return events;
}

const textOf = (events: readonly AnswerEvent[]): string =>
  events.map((event) => (event.kind === 'delta' ? event.text : '')).join('');

describe('TextGenerator.start()', () => {
  it('ends with what the engine says of the answer', async () => {
    const { generator } = generatorOf(saying('abc'));
    const events = await eventsOf(generator);
    expect(events[0]).toEqual({ kind: 'prefill', done: 3, total: 3, cached: 3 });
    expect(events.at(-1)).toMatchObject({
      kind: 'finish',
      reason: 'stop',
      usage: { completionTokens: 3, bytesRead: 4096 },
    });
  });

  it('never gives out a part of a character, and what is left of one at the end as U+FFFD', async () => {
    const cut = await eventsOf(generatorOf(saying('a€')).generator, { maxTokens: 3 });
    expect(textOf(cut)).toBe('a\uFFFD');
    const whole = await eventsOf(generatorOf(saying('a€😀')).generator);
    expect(whole.filter(({ kind }) => kind === 'delta').map((event) => textOf([event]))).toEqual(['a', '€', '😀']);
  });

  it('finds a stop text that only the end of the answer completes', async () => {
    // The last byte of the stop text comes out of the detokenizer's flush.
    const { generator } = generatorOf(saying('x\u20ac'));
    const events = await eventsOf(generator, { maxTokens: 2, stop: ['\uFFFD'] });
    expect(textOf(events)).toBe('x');
    expect(events.at(-1)).toMatchObject({ kind: 'finish', reason: 'stop' });
  });

  it('looks for stop texts in what comes after minTokens only, and tells the engine of both', async () => {
    const { generator, engine } = generatorOf(saying('a stop, a stop, a stop'));
    const shownWith = async (minTokens: number) =>
      textOf(await eventsOf(generator, { stop: ['stop', ', '], minTokens }));
    expect([await shownWith(0), await shownWith(5), await shownWith(6)]).toEqual(['a ', 'a ', 'a stop']);
    expect([await shownWith(7), await shownWith(8), await shownWith(15)]).toEqual([
      'a stop',
      'a stop, a ',
      'a stop, a stop',
    ]);
    expect(await shownWith(16)).toBe('a stop, a stop, a ');
    await eventsOf(generator, { stopTokenIds: [7], minTokens: 2 });
    await eventsOf(generator, { stopTokenIds: [7], ignoreEos: true });
    expect(engine.requests.slice(-2)).toMatchObject([{ stopTokenIds: [256, 7], minTokens: 2 }, { stopTokenIds: [7] }]);
  });

  it('ends by predictMs after the first token, once a line is whole, and shows what a stop text held back', async () => {
    let nowMs = 0;
    const engine = scriptedEngine(async function* (request) {
      for (const [tokenId, ms] of [...Buffer.from('ab\ncdef')].map((id, i) => [id, i * 100] as const)) {
        nowMs = 5000 + ms;
        yield tokenEvent(request, tokenId);
      }
    });
    const generator = new TextGenerator(engine, byteText, { capacity: 4, defaults }, () => nowMs);
    const ended = async (options: Partial<AnswerOptions>) => {
      const events = await eventsOf(generator, options);
      return [textOf(events), events.at(-1)];
    };
    const finish = (completionTokens: number) => ({ kind: 'finish', reason: 'length', usage: { completionTokens } });
    expect(await ended({ predictMs: 1 })).toMatchObject(['ab\n', finish(3)]);
    expect(await ended({ predictMs: 300 })).toMatchObject(['ab\ncd', finish(5)]);
    expect(await ended({ predictMs: 300, stop: ['cdx'] })).toMatchObject(['ab\ncd', finish(5)]);
    expect(await ended({ predictMs: 300, stop: ['d'] })).toMatchObject(['ab\nc', { reason: 'stop', stop: 'd' }]);
    expect(engine.cancelled).toBe(4);
  });

  it('tells thoughts apart that the continued message left open, and keeps the space it goes on with', async () => {
    const split = async (continued: string) => {
      const { generator } = generatorOf(saying(' so</think> yes'));
      const jobs = [{ promptIds: [1], options: OPTIONS, splitsReasoning: true, continued }];
      const told = { reasoning: '', delta: '' };
      for await (const { value } of generator.start(jobs, new AbortController().signal)) {
        if (value.kind === 'delta' || value.kind === 'reasoning') told[value.kind] += value.text;
      }
      return [told.reasoning, told.delta];
    };
    expect(await split('<think>It is')).toEqual(['so', 'yes']);
    expect(await split('<think>It is.</think>It is')).toEqual(['', ' so</think> yes']);
    expect(await split('It is')).toEqual(['', ' so</think> yes']);
  });

  it('answers nothing and does not ask the engine when maxTokens is 0', async () => {
    const { generator, engine } = generatorOf(saying('abc'));
    expect(await eventsOf(generator, { maxTokens: 0 })).toMatchObject([{ kind: 'finish', reason: 'length' }]);
    expect(engine.requests).toEqual([]);
  });

  it('throws ENGINE_CLOSED when the engine falls silent', async () => {
    const { generator } = generatorOf(async function* (request) {
      yield tokenEvent(request, 0x61);
    });
    await expect(eventsOf(generator)).rejects.toMatchObject({ code: 'ENGINE_CLOSED' });
  });

  it('ends all answers of a request when one of them fails', async () => {
    const never = new Promise<void>(() => undefined);
    const { generator, engine } = generatorOf(async function* (request, until) {
      yield tokenEvent(request, 0x61);
      if (request.promptIds[0] === 2) throw new Error('this one fails');
      await until(never);
    });
    const jobs = [1, 2, 3].map((id) => ({ promptIds: [id], options: OPTIONS }));
    const read = async () => {
      for await (const { value } of generator.start(jobs, new AbortController().signal))
        expect(value.kind).toBe('delta');
    };
    await expect(read()).rejects.toThrow('this one fails');
    expect(engine.cancelled).toBe(3);
  });

  it('gives its room back however an answer ends: whole, left, failed, aborted before it began', async () => {
    const { opened, open } = gate();
    const { generator } = generatorOf(async function* (request, until) {
      yield tokenEvent(request, 0x61);
      if (request.promptIds[0] === 9) throw new Error('fails');
      await until(opened);
      yield* saying('b')(request, until);
    }, 1);
    const start = (id: number, signal = new AbortController().signal) =>
      generator.start([{ promptIds: [id], options: OPTIONS }], signal);

    const first = start(1);
    await first.next();
    expect(() => start(1)).toThrow(expect.objectContaining({ code: 'QUEUE_FULL' }));
    await first.return();
    const failing = start(9);
    await failing.next();
    await expect(failing.next()).rejects.toThrow('fails');
    const controller = new AbortController();
    start(1, controller.signal);
    controller.abort();
    const waiting = start(1);
    await waiting.next();
    open();
    for await (const { value } of waiting) expect(value.kind).not.toBe('prefill-of-another');
    expect((await start(1).next()).value).toMatchObject({ index: 0 });
  });
});
