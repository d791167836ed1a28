/** Tools and structured output through every client (B1, B2.10, B3, B4): the model is small, so what it calls is forced. */
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { ChatOpenAI } from '@langchain/openai';
import { generateObject, generateText, jsonSchema, type LanguageModel, streamText, type ToolSet } from 'ai';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bodyOf, eventsOf, FRANCE, type Served, servePocket } from './served.js';

let served: Served;
let client: OpenAI;
let models: Record<'compatible' | 'chat' | 'responses', LanguageModel>;
beforeAll(async () => {
  served = await servePocket();
  const { baseURL } = served;
  client = new OpenAI({ baseURL, apiKey: 'any', maxRetries: 0 });
  const openai = createOpenAI({ baseURL, apiKey: 'any' });
  const compatible = createOpenAICompatible({ name: 'moestro', baseURL, supportsStructuredOutputs: true });
  models = { compatible: compatible('pocket'), chat: openai.chat('pocket'), responses: openai('pocket') };
});
afterAll(() => served.close());

const QUESTION = FRANCE[0]!.content;
const SCHEMA = {
  type: 'object' as const,
  properties: { unit: { enum: ['c', 'f'] }, n: { type: 'integer' as const, minimum: 0, maximum: 9 } },
  required: ['unit', 'n'],
  additionalProperties: false,
};
const FITTING = { unit: expect.stringMatching(/^[cf]$/), n: expect.any(Number) };
const CHAT_TOOL = { type: 'function' as const, function: { name: 'look', parameters: SCHEMA, strict: true } };
const CHAT = { model: 'pocket', messages: FRANCE, tools: [CHAT_TOOL] };

describe('openai, chat (B1, B2.10)', () => {
  it('the helper reads a streamed call: index, type, fragments, finish_reason tool_calls', async () => {
    const final = await client.chat.completions.stream({ ...CHAT, tool_choice: 'required' }).finalChatCompletion();
    const [choice] = final.choices;
    expect([choice!.finish_reason, choice!.message.content]).toEqual(['tool_calls', null]);
    const [call] = choice!.message.tool_calls!;
    expect(call).toMatchObject({ type: 'function', function: { name: 'look' } });
    expect(JSON.parse(call!.function.arguments)).toEqual(FITTING);
  });

  it('parse() gets JSON that its schema fits, and json_object gets JSON', async () => {
    const json_schema = { name: 'x', schema: SCHEMA, strict: true };
    const messages = FRANCE;
    const parsed = await client.chat.completions.parse({
      model: 'pocket',
      messages,
      response_format: { type: 'json_schema', json_schema },
    });
    expect(parsed.choices[0]!.message.parsed).toEqual(FITTING);
    const refused = { $dynamicRef: '#x' };
    const failure = client.chat.completions.create({
      model: 'pocket',
      messages,
      response_format: { type: 'json_schema', json_schema: { name: 'x', schema: refused } },
    });
    await expect(failure).rejects.toMatchObject({ status: 400, param: 'response_format.json_schema.schema' });
  });

  it('takes anyOf and oneOf inside of parameters', async () => {
    const parameters = {
      type: 'object',
      properties: { a: { anyOf: [{ const: 1 }, { const: 'x' }] } },
      required: ['a'],
    };
    const tools = [{ type: 'function' as const, function: { name: 'pick', parameters } }];
    const tool_choice = { type: 'function' as const, function: { name: 'pick' } };
    const answer = await client.chat.completions.create({ ...CHAT, tools, tool_choice, max_tokens: 200 });
    const [call] = answer.choices[0]!.message.tool_calls!;
    expect(call).toMatchObject({ function: { name: 'pick' } });
  });
});

describe('openai, responses (B3)', () => {
  const tools = [{ type: 'function' as const, name: 'look', parameters: SCHEMA, strict: true }];

  it('calls flat tools, whole and as events', async () => {
    const asked = { model: 'pocket', input: QUESTION, tools, tool_choice: 'required' as const };
    const { output } = await client.responses.create(asked);
    expect(output).toEqual([
      expect.objectContaining({
        type: 'function_call',
        name: 'look',
        call_id: expect.any(String),
        status: 'completed',
      }),
    ]);
    const names = new Set<string>();
    for await (const { type } of await client.responses.create({ ...asked, stream: true })) names.add(type);
    expect([...names]).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.function_call_arguments.delta',
      'response.function_call_arguments.done',
      'response.output_item.done',
      'response.completed',
    ]);
  });

  it('answers in the format of text.format', async () => {
    const text = { format: { type: 'json_schema' as const, name: 'x', schema: SCHEMA, strict: true } };
    const response = await client.responses.create({ model: 'pocket', input: QUESTION, text });
    expect(JSON.parse(response.output_text)).toEqual(FITTING);
  });
});

describe.each(['compatible', 'chat', 'responses'] as const)('AI SDK, provider %s', (provider) => {
  const tools: ToolSet = { look: { description: 'Looks.', inputSchema: jsonSchema(SCHEMA) } };
  const ask = { prompt: QUESTION, temperature: 0, maxRetries: 0, tools };

  it('delivers a call, whole and streamed', async () => {
    const whole = await generateText({ model: models[provider], ...ask, toolChoice: 'required' });
    expect(whole.finishReason).toBe('tool-calls');
    expect(whole.toolCalls).toMatchObject([{ toolName: 'look', input: FITTING }]);
    const stream = streamText({ model: models[provider], ...ask, toolChoice: { type: 'tool', toolName: 'look' } });
    const types = new Set<string>();
    for await (const { type } of stream.fullStream) types.add(type);
    expect([types.has('tool-call'), types.has('error')]).toEqual([true, false]);
    expect(await stream.finishReason).toBe('tool-calls');
  });

  it('makes an object that its schema fits', async () => {
    const { prompt, temperature, maxRetries } = ask;
    const schema = jsonSchema(SCHEMA);
    const made = await generateObject({ model: models[provider], prompt, temperature, maxRetries, schema });
    expect(made.object).toEqual(FITTING);
  });
});

describe('LangChain (B4)', () => {
  const model = () =>
    new ChatOpenAI({
      model: 'pocket',
      apiKey: 'any',
      maxRetries: 0,
      temperature: 0,
      configuration: { baseURL: served.baseURL },
    });

  it('withStructuredOutput by schema and by a named function', async () => {
    const schema = { title: 'x', ...SCHEMA };
    expect(await model().withStructuredOutput(schema).invoke(QUESTION)).toEqual(FITTING);
    const calling = model().withStructuredOutput(schema, { method: 'functionCalling', name: 'x' });
    expect(await calling.invoke(QUESTION)).toEqual(FITTING);
  });

  it('bindTools, which sends parallel_tool_calls', async () => {
    const bound = model().bindTools([CHAT_TOOL], { tool_choice: 'required', parallel_tool_calls: false });
    expect((await bound.invoke(QUESTION)).tool_calls).toMatchObject([{ name: 'look', args: FITTING }]);
  });
});

describe('Messages (B4, Claude Code)', () => {
  const asked = {
    model: 'claude',
    max_tokens: 200,
    messages: FRANCE,
    tools: [{ name: 'look', description: 'Looks.', input_schema: SCHEMA }],
  };

  it('answers a call as a block tool_use, whole and streamed', async () => {
    const whole = await (await served.post('/v1/messages', { ...asked, tool_choice: { type: 'any' } })).json();
    expect(whole).toMatchObject({
      content: [{ type: 'tool_use', name: 'look', input: FITTING }],
      stop_reason: 'tool_use',
    });
    const tool_choice = { type: 'tool', name: 'look' };
    const events = await eventsOf(await served.post('/v1/messages', { ...asked, tool_choice, stream: true }));
    const json = events
      .map(({ data }) => (data as { delta?: { partial_json?: string } }).delta?.partial_json ?? '')
      .join('');
    expect(JSON.parse(json)).toEqual(FITTING);
    expect(events.at(-2)!.data).toMatchObject({ delta: { stop_reason: 'tool_use' } });
  });

  it('counts what tools add to the prompt', async () => {
    const count = async (body: object) =>
      (await bodyOf<{ input_tokens: number }>(served.post('/v1/messages/count_tokens', body))).input_tokens;
    expect(await count(asked)).toBeGreaterThan(await count({ ...asked, tools: [] }));
  });
});
