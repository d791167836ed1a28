/** Answers with thoughts and calls as the streams of /v1/responses and /v1/messages tell them. */
import { describe, expect, it } from 'vitest';
import type { AnswerEvent } from '../../src/answer/types.js';
import { GREEDY } from '../../src/engine/types.js';
import { MessageEvents } from '../../src/http/wire/message-events.js';
import { ResponseEvents } from '../../src/http/wire/response-events.js';
import { readResponsesRequest } from '../../src/http/wire/responses.js';
import { INFO, USAGE } from './scripted.js';

const piece = (kind: 'delta' | 'reasoning', text: string): AnswerEvent => ({ kind, text, tokens: [], tokenCount: 1 });
const finish = (reason: 'stop' | 'length' | 'toolCalls'): AnswerEvent => ({
  kind: 'finish',
  reason,
  usage: { ...USAGE, promptTokens: 10, completionTokens: 5, reasoningTokens: 2 },
  stop: null,
});
const CALLS: readonly AnswerEvent[] = [
  { kind: 'prefill', done: 10, total: 10, cached: 0 },
  piece('reasoning', 'Hm'),
  piece('reasoning', '.'),
  piece('delta', 'I look.'),
  { kind: 'toolCall', call: 0, id: 'call_a', name: 'look' },
  { kind: 'toolArguments', call: 0, text: '{"at":' },
  { kind: 'toolArguments', call: 0, text: '"it"}' },
  { kind: 'toolCall', call: 1, id: 'call_b', name: 'wait' },
  finish('toolCalls'),
];

interface Event {
  readonly type: string;
  readonly sequence_number?: number;
  readonly [field: string]: unknown;
}

async function told(
  events: readonly AnswerEvent[],
  writer: { from(answers: AsyncIterable<{ readonly value: AnswerEvent }>): AsyncIterable<object> },
): Promise<Event[]> {
  async function* answers() {
    for (const value of events) yield { index: 0, value };
  }
  const all: Event[] = [];
  // As they are when they are sent.
  for await (const event of writer.from(answers())) all.push(JSON.parse(JSON.stringify(event)));
  return all;
}

const asked = (body: object) =>
  readResponsesRequest({ input: 'hi', ...body }, { info: INFO, capacity: 4, defaults: GREEDY });
const runs = (events: readonly Event[]) => events.map(({ type }) => type).filter((type, i, all) => type !== all[i - 1]);

describe('ResponseEvents', () => {
  it('tells thoughts, text and calls as items of their own, each opened, filled and closed', async () => {
    const events = await told(CALLS, new ResponseEvents(asked({}), 'pocket'));
    expect(events.map(({ sequence_number }) => sequence_number)).toEqual(events.map((_, i) => i));
    const item = (kind: string, ...between: string[]) => [
      'response.output_item.added',
      ...between,
      ...(kind === 'call' ? [] : ['response.content_part.done']),
      'response.output_item.done',
    ];
    expect(runs(events)).toEqual([
      'response.created',
      'response.in_progress',
      ...item(
        'reasoning',
        'response.content_part.added',
        'response.reasoning_text.delta',
        'response.reasoning_text.done',
      ),
      ...item('message', 'response.content_part.added', 'response.output_text.delta', 'response.output_text.done'),
      ...item('call', 'response.function_call_arguments.delta', 'response.function_call_arguments.done'),
      ...item('call', 'response.function_call_arguments.done'),
      'response.completed',
    ]);
    const { response } = events.at(-1) as unknown as { response: Record<string, unknown> };
    expect(response).toMatchObject({
      status: 'completed',
      output: [
        { type: 'reasoning', summary: [], content: [{ type: 'reasoning_text', text: 'Hm.' }] },
        { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'I look.', annotations: [] }] },
        { type: 'function_call', call_id: 'call_a', name: 'look', arguments: '{"at":"it"}', status: 'completed' },
        { type: 'function_call', call_id: 'call_b', name: 'wait', arguments: '', status: 'completed' },
      ],
      usage: { input_tokens: 10, output_tokens: 5, output_tokens_details: { reasoning_tokens: 2 }, total_tokens: 15 },
    });
    const added = events.filter(({ type }) => type === 'response.output_item.added');
    expect(added.map(({ output_index }) => output_index)).toEqual([0, 1, 2, 3]);
    expect(added[2]!.item).toMatchObject({
      type: 'function_call',
      call_id: 'call_a',
      arguments: '',
      status: 'in_progress',
    });
  });

  it('tells thoughts as a summary when one is asked for', async () => {
    const events = await told(CALLS, new ResponseEvents(asked({ reasoning: { summary: 'auto' } }), 'pocket'));
    expect(runs(events).slice(2, 7)).toEqual([
      'response.output_item.added',
      'response.reasoning_summary_part.added',
      'response.reasoning_summary_text.delta',
      'response.reasoning_summary_text.done',
      'response.reasoning_summary_part.done',
    ]);
  });

  it('ends incomplete at the limit, and has an empty message when nothing was said', async () => {
    const events = await told([finish('length')], new ResponseEvents(asked({}), 'pocket'));
    expect(events.at(-1)).toMatchObject({
      type: 'response.incomplete',
      response: {
        status: 'incomplete',
        incomplete_details: { reason: 'max_output_tokens' },
        output: [{ type: 'message', status: 'incomplete', content: [{ text: '' }] }],
      },
    });
  });
});

describe('readResponsesRequest()', () => {
  it('reads flat tools, the choice among them, and the format', () => {
    const tools = [{ type: 'function', name: 'look', description: 'd', parameters: { type: 'object' }, strict: true }];
    const format = { type: 'json_schema', name: 'n', schema: { type: 'object' }, strict: true };
    const { options } = asked({ tools, tool_choice: { type: 'function', name: 'look' }, text: { format } });
    expect(options.toolUse).toEqual({
      tools: [{ name: 'look', description: 'd', parameters: { type: 'object' }, param: 'tools[0].parameters' }],
      choice: { name: 'look' },
      parallel: true,
    });
    expect(options.format).toEqual({ kind: 'json_schema', schema: { type: 'object' }, param: 'text.format.schema' });
    expect(options.precision).toEqual({ mode: 'exact' });
    expect(asked({ tools, tool_choice: 'none' }).options.toolUse).toBeUndefined();
    expect(asked({ tools, max_tool_calls: 3 }).options.toolUse).toMatchObject({ parallel: true, callsMax: 3 });
  });

  it.each([
    [{ input: undefined }, 'input'],
    [{ input: [] }, 'input'],
    [{ input: [{ role: 'king', content: 'x' }] }, 'input[0].role'],
    [{ input: [{ type: 'item_reference', id: 'x' }] }, 'input[0].type'],
    [{ input: [{ type: 'function_call', call_id: 'x', name: 'y' }] }, 'input[0].arguments'],
    [{ previous_response_id: 'x' }, 'previous_response_id'],
    [{ conversation: 'x' }, 'conversation'],
    [{ background: true }, 'background'],
    [{ n: 2 }, 'n'],
    [{ max_tool_calls: 0 }, 'max_tool_calls'],
    [{ truncation: 'oldest' }, 'truncation'],
    [{ tools: [{ type: 'web_search' }] }, 'tools[0].type'],
    [{ tool_choice: 'required' }, 'tool_choice'],
    [{ tool_choice: { type: 'function', name: 'x' } }, 'tool_choice.name'],
    [{ text: { format: { type: 'xml' } } }, 'text.format.type'],
    [{ text: { format: { type: 'json_schema' } } }, 'text.format.schema'],
    [{ max_output_tokens: 0 }, 'max_output_tokens'],
  ])('refuses %j by name', (body, param) => {
    let thrown: unknown;
    try {
      asked(body);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toMatchObject({ details: { param } });
  });
});

describe('MessageEvents', () => {
  it('tells thoughts, text and calls as blocks, and adds them up', async () => {
    const writer = new MessageEvents('pocket', 10);
    const events = await told(CALLS, writer);
    const block = ['content_block_start', 'content_block_delta', 'content_block_stop'];
    expect(runs(events)).toEqual([
      'message_start',
      ...block,
      ...block,
      ...block,
      'content_block_start',
      'content_block_stop',
      'message_delta',
      'message_stop',
    ]);
    const starts = events.filter(({ type }) => type === 'content_block_start');
    expect(starts[2]).toMatchObject({
      index: 2,
      content_block: { type: 'tool_use', id: 'call_a', name: 'look', input: {} },
    });
    const json = events
      .map(({ delta }) => (delta as { partial_json?: string } | undefined)?.partial_json ?? '')
      .join('');
    expect(json).toBe('{"at":"it"}');
    expect(writer.whole()).toMatchObject({
      content: [
        { type: 'thinking', thinking: 'Hm.' },
        { type: 'text', text: 'I look.' },
        { type: 'tool_use', id: 'call_a', name: 'look', input: { at: 'it' } },
        { type: 'tool_use', id: 'call_b', name: 'wait', input: {} },
      ],
      stop_reason: 'tool_use',
      // Three of the ten came from the cache.
      usage: { input_tokens: 7, cache_read_input_tokens: 3, output_tokens: 5 },
    });
  });

  it('shows arguments that were cut off as they are', async () => {
    const writer = new MessageEvents('pocket', 10);
    await told([...CALLS.slice(4, 6), finish('length')], writer);
    expect(writer.whole()).toMatchObject({
      content: [{ type: 'tool_use', input: { partial: '{"at":' } }],
      stop_reason: 'max_tokens',
    });
  });
});
