/** Formats with the bundled model: what it writes fits, whatever else a request asks for. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AnswerOptions, AnswerUsage, Format } from '../../src/answer/types.js';
import { engineConfig } from '../../src/config.js';
import { type OpenModel, openModel } from '../../src/open-model.js';

const SCHEMA = {
  type: 'object',
  properties: {
    country_of_the_capital: { type: 'string', minLength: 2, maxLength: 24 },
    is_in_europe: { type: 'boolean' },
    inhabitants: { type: 'integer', minimum: 1, maximum: 100_000_000 },
    neighbours: { type: 'array', items: { enum: ['Spain', 'Italy', 'Peru'] }, maxItems: 3 },
  },
  required: ['country_of_the_capital', 'is_in_europe', 'inhabitants', 'neighbours'],
  additionalProperties: false,
};
const FORMAT: Format = { kind: 'json_schema', schema: SCHEMA, param: 'format' };
let model: OpenModel;

beforeAll(async () => {
  model = await openModel(engineConfig('models/pocket.moe', { budget: '400MiB' }, {}));
});
afterAll(() => model.close());

interface Answered {
  readonly text: string;
  readonly reason: string;
  readonly usage: AnswerUsage;
  readonly calls: string[];
}

async function answers(options: Partial<AnswerOptions>, sampling: Partial<AnswerOptions['sampling']>, count = 1) {
  const { generator } = model;
  const promptIds = generator.prompts.fromChat([{ role: 'user', content: 'What is the capital of France?' }]);
  const seed = sampling.seed ?? 0;
  const jobs = Array.from({ length: count }, (_, i) => ({
    promptIds,
    options: {
      maxTokens: 400,
      stop: [],
      ...options,
      sampling: { ...generator.defaults, ...sampling, seed: seed + i },
    },
  }));
  const all: Answered[] = jobs.map(() => ({ text: '', reason: '', usage: {} as AnswerUsage, calls: [] }));
  for await (const { index, value } of generator.start(jobs, new AbortController().signal)) {
    const one = all[index]!;
    if (value.kind === 'delta') all[index] = { ...one, text: one.text + value.text };
    else if (value.kind === 'toolCall') one.calls.push('');
    else if (value.kind === 'toolArguments') one.calls[value.call] += value.text;
    else if (value.kind === 'finish') all[index] = { ...one, reason: value.reason, usage: value.usage };
  }
  return all;
}

describe('an answer in a format', () => {
  const validate = new Ajv2020().compile(SCHEMA);

  it.each([
    ['greedy', {}, { temperature: 0 }],
    ['hot', {}, { temperature: 2, topK: 0, topP: 1, minP: 0 }],
    [
      'with penalties and bias',
      {},
      { temperature: 1, repetitionPenalty: 1.3, frequencyPenalty: 1, logitBias: [[5, 100]] as const },
    ],
    ['with logprobs', {}, { temperature: 1, topLogprobs: 2 }],
    ['in routed mode', { precision: { mode: 'routed', bits: 3 } as const }, { temperature: 1 }],
  ])('is valid when drawn %s, four at once', async (_name, options, sampling) => {
    const texts: string[] = [];
    for (const { text, reason } of await answers({ format: FORMAT, ...options }, sampling, 4)) {
      expect([reason, validate(JSON.parse(text)), text]).toEqual(['stop', true, text]);
      texts.push(text);
    }
    const again = await answers({ format: FORMAT, ...options }, sampling, 4);
    expect(again.map(({ text }) => text)).toEqual(texts);
  });

  it('writes what is the only way on without sampling it, in the tokens of the tokenizer', async () => {
    const format: Format = {
      kind: 'regex',
      pattern: 'The capital of France is (Paris|Rome), as everybody knows\\.',
      param: 'x',
    };
    const [jumped] = await answers({ format }, { temperature: 0 });
    const [stepped] = await answers({ format }, { temperature: 0, topLogprobs: 0 });
    expect(jumped!.text).toMatch(/^The capital of France is (Paris|Rome), as everybody knows\.$/);
    expect(stepped!.text).toMatch(/^The capital of France is (Paris|Rome), as everybody knows\.$/);
    const before = await model.generator.metrics();
    await answers({ format }, { temperature: 0 });
    const after = await model.generator.metrics();
    // Steps are the prompt's, and those of tokens that were drawn.
    expect(after.steps - before.steps).toBeLessThan(jumped!.usage.completionTokens);
  });

  it('is cut by max_tokens and by stop texts only', async () => {
    const [cut] = await answers({ format: FORMAT, maxTokens: 5 }, { temperature: 0 });
    expect([cut!.reason, cut!.usage.completionTokens]).toEqual(['length', 5]);
    const [stopped] = await answers({ format: FORMAT, stop: ['_europe'] }, { temperature: 0 });
    expect(stopped!.reason).toBe('stop');
    expect(stopped!.text.endsWith('"is_in')).toBe(true);
  });

  it('is calls of tools where they are required', async () => {
    const tools = [{ name: 'look_up', parameters: SCHEMA, param: 'tools[0]' }];
    const all = await answers({ toolUse: { tools, choice: 'required', parallel: false } }, { temperature: 1 }, 3);
    for (const { text, calls, reason } of all) {
      expect([text, calls.length, reason]).toEqual(['', 1, 'toolCalls']);
      expect(validate(JSON.parse(calls[0]!))).toBe(true);
    }
  });

  it('holds no more calls than callsMax, which a model that likes to call runs into', async () => {
    const tools = [{ name: 'f', parameters: { const: {} }, param: 'tools[0]' }];
    const [newLine] = model.generator.prompts.tokenize('\n', { special: false, addBos: false });
    // After a call stands its end or a line break before the next one.
    const logitBias = [[newLine!, 100]] as const;
    const calls = async (more: object) => {
      const toolUse = { tools, choice: 'required' as const, parallel: true, ...more };
      return (await answers({ toolUse, maxTokens: 1000 }, { temperature: 0, logitBias }))[0]!;
    };
    for (const callsMax of [1, 2, 5]) {
      const { calls: made, reason } = await calls({ callsMax });
      expect([made.length, reason]).toEqual([callsMax, 'toolCalls']);
    }
    expect((await calls({})).calls.length).toBe(16);
    expect((await calls({ callsMax: 99 })).calls.length).toBe(16);
    expect((await calls({ callsMax: 5, parallel: false })).calls.length).toBe(1);
  });

  it('may be text where tools are the choice of the model', async () => {
    const tools = [{ name: 'look_up', parameters: SCHEMA, param: 'tools[0]' }];
    const [free] = await answers({}, { temperature: 0 });
    const [auto] = await answers({ toolUse: { tools, choice: 'auto', parallel: true } }, { temperature: 0 });
    expect([auto!.text, auto!.reason]).toEqual([free!.text, 'stop']);
  });
});
