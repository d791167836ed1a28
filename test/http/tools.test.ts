/** Tools, response_format and grammars over the wire; what the engine keeps to is tested in test/constrain. */
import type { FastifyInstance } from 'fastify';
import OpenAI from 'openai';
import { afterEach, describe, expect, it } from 'vitest';
import { listening, saying, sseEvents, type TestServer, testServer } from './scripted.js';

const USER = [{ role: 'user', content: 'hi' }];
const TOOLS = [
  {
    type: 'function',
    function: {
      name: 'weather',
      description: 'Tells the weather',
      parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    },
  },
  { type: 'function', function: { name: 'now' } },
];
const CALLS =
  'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n' +
  '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>';
const ID = expect.stringMatching(/^call_[\w-]{20}$/);

let open: FastifyInstance[] = [];

async function server(text: string): Promise<TestServer> {
  const made = await testServer(saying(text));
  open.push(made.app);
  return made;
}

afterEach(async () => {
  await Promise.all(open.map((app) => app.close()));
  open = [];
});

const post = (app: FastifyInstance, payload: object, url = '/v1/chat/completions') =>
  app.inject({
    method: 'POST',
    url,
    headers: { 'content-type': 'application/json' },
    payload: JSON.stringify(payload),
  });

describe('tools in /v1/chat/completions', () => {
  it('are answered with calls, their arguments as text', async () => {
    const { app, engine } = await server(CALLS);
    const [choice] = (await post(app, { messages: USER, tools: TOOLS })).json().choices;
    expect(choice).toEqual({
      index: 0,
      message: {
        role: 'assistant',
        content: 'Let me look.',
        refusal: null,
        tool_calls: [
          { id: ID, type: 'function', function: { name: 'weather', arguments: '{"city": "Oslo"}' } },
          { id: ID, type: 'function', function: { name: 'now', arguments: '{}' } },
        ],
      },
      logprobs: null,
      finish_reason: 'tool_calls',
    });
    expect(choice.message.tool_calls[0].id).not.toBe(choice.message.tool_calls[1].id);
    expect(engine.requests[0]!.format?.kinds.length).toBeGreaterThan(10);
    expect(engine.requests[0]!.precision).toEqual({ mode: 'exact' });
  });

  it('have null content where nothing but calls was said', async () => {
    const { app } = await server(CALLS.slice(CALLS.indexOf('<')));
    const [{ message }] = (await post(app, { messages: USER, tools: TOOLS, tool_choice: 'required' })).json().choices;
    expect(message.content).toBeNull();
    expect(message.tool_calls.length).toBe(2);
  });

  it('stream a head for each call, then its arguments in pieces', async () => {
    const { app } = await server(CALLS);
    const body = (await post(app, { messages: USER, tools: TOOLS, stream: true })).body;
    const chunks = sseEvents(body).filter((event) => typeof event === 'object') as {
      choices: {
        delta: Record<string, unknown> & { tool_calls?: { index: number; function: { arguments: string } }[] };
        finish_reason: string | null;
      }[];
    }[];
    const deltas = chunks.map(({ choices }) => choices[0]!.delta);
    expect(deltas[0]).toEqual({ role: 'assistant', content: '' });
    expect(deltas.map(({ content }) => content ?? '').join('')).toBe('Let me look.');
    const calls = deltas.flatMap(({ tool_calls }) => tool_calls ?? []);
    const heads = calls.filter((call) => 'id' in call);
    expect(heads).toEqual([
      { index: 0, id: ID, type: 'function', function: { name: 'weather', arguments: '' } },
      { index: 1, id: ID, type: 'function', function: { name: 'now', arguments: '' } },
    ]);
    const argumentsOf = (index: number) =>
      calls
        .filter((call) => call.index === index)
        .map((call) => call.function.arguments)
        .join('');
    expect([argumentsOf(0), argumentsOf(1)]).toEqual(['{"city": "Oslo"}', '{}']);
    expect(calls.filter(({ index }) => index === 0).length).toBeGreaterThan(3);
    expect(chunks.at(-1)!.choices[0]).toMatchObject({ delta: {}, finish_reason: 'tool_calls' });
  });

  it('are read by the client package, streaming helper included', async () => {
    const { app } = await server(CALLS);
    const client = new OpenAI({ baseURL: `${await listening(app)}/v1`, apiKey: 'any', maxRetries: 0 });
    const stream = client.chat.completions.stream({
      model: 'm',
      messages: [{ role: 'user', content: 'x' }],
      tools: TOOLS as never,
    });
    const message = await stream.finalMessage();
    expect(message.tool_calls?.map((call) => (call.type === 'function' ? call.function.arguments : ''))).toEqual([
      '{"city": "Oslo"}',
      '{}',
    ]);
  });

  it('end with "length" where a call was cut', async () => {
    const { app } = await server(CALLS);
    const body = { messages: USER, tools: TOOLS, max_tokens: CALLS.indexOf('Oslo') };
    const [choice] = (await post(app, body)).json().choices;
    expect(choice.finish_reason).toBe('length');
    expect(choice.message.tool_calls[0].function.arguments).toBe('{"city": "');
  });

  it.each([
    [
      'a choice of an unknown function',
      { tools: TOOLS, tool_choice: { type: 'function', function: { name: 'no' } } },
      'tool_choice',
      'invalid_value',
    ],
    ['a choice without tools', { tool_choice: 'required' }, 'tool_choice', 'invalid_value'],
    [
      'a name with blanks',
      { tools: [{ type: 'function', function: { name: 'a b' } }] },
      'tools[0].function.name',
      'invalid_value',
    ],
    ['a name that comes twice', { tools: [TOOLS[1], TOOLS[1]] }, 'tools[1].function.name', 'invalid_value'],
    [
      'parameters that are not supported',
      { tools: [TOOLS[1], { type: 'function', function: { name: 'f', parameters: { not: {} } } }] },
      'tools[1].function.parameters',
      'unsupported_format',
    ],
    ['another kind of tool', { tools: [{ type: 'web_search' }] }, 'tools[0].type', 'unsupported_parameter'],
    ['an unknown format', { response_format: { type: 'xml' } }, 'response_format.type', 'invalid_value'],
    [
      'a format without schema',
      { response_format: { type: 'json_schema' } },
      'response_format.json_schema.schema',
      'invalid_value',
    ],
    [
      'two formats',
      { response_format: { type: 'json_object' }, grammar: 'root ::= "x"' },
      'response_format',
      'invalid_value',
    ],
  ])('refuse %s', async (_name, body, param, code) => {
    const { app, engine } = await server('x');
    const response = await post(app, { messages: USER, ...body });
    expect(response.statusCode).toBe(400);
    expect(response.json().error).toMatchObject({ param, code });
    expect(engine.requests).toEqual([]);
  });

  it('take anyOf and oneOf in parameters', async () => {
    const { app } = await server('x');
    const parameters = {
      type: 'object',
      properties: {
        a: { oneOf: [{ type: 'integer' }, { type: 'number' }] },
        b: { anyOf: [{ type: 'string' }, { type: 'null' }] },
      },
    };
    const response = await post(app, {
      messages: USER,
      tools: [{ type: 'function', function: { name: 'f', parameters } }],
    });
    expect(response.statusCode).toBe(200);
  });
});

describe('formats', () => {
  it.each([
    ['response_format json_object', { response_format: { type: 'json_object' } }],
    [
      'response_format json_schema',
      {
        response_format: { type: 'json_schema', json_schema: { name: 'n', strict: true, schema: { type: 'integer' } } },
      },
    ],
    ['a grammar', { grammar: 'root ::= "x"+' }],
    ['guided_regex', { guided_regex: 'x+' }],
    ['guided_choice', { guided_choice: ['x', 'y'] }],
    ['guided_json as text', { guided_json: '{"type":"integer"}' }],
  ])('reach the engine compiled, from %s', async (_name, body) => {
    const { app, engine } = await server('x');
    expect((await post(app, { messages: USER, ...body })).statusCode).toBe(200);
    expect(engine.requests[0]!.format!.kinds.length).toBeGreaterThan(1);
  });

  it('stand in completions under their plain names', async () => {
    const { app, engine } = await server('x');
    expect((await post(app, { prompt: 'a', guided_regex: 'x+' }, '/v1/completions')).statusCode).toBe(200);
    expect(engine.requests[0]!.format).toBeDefined();
  });
});
