/** Anthropic's Messages API as Claude Code speaks it, against the real server (B3, B4). */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bodyOf, eventsOf, FRANCE, newLong, type Served, servePocket } from './served.js';

let served: Served;
beforeAll(async () => {
  served = await servePocket();
});
afterAll(() => served.close());

const HEADERS = { 'x-api-key': 'any', 'anthropic-version': '2023-06-01', 'anthropic-beta': 'x' };
const ASK = { model: 'claude', max_tokens: 64, temperature: 0, messages: FRANCE };
interface Message {
  type: string;
  content: { text: string }[];
  stop_reason: string;
  stop_sequence: string | null;
  usage: { input_tokens: number; cache_read_input_tokens: number };
}
const send = (body: object, path = '/v1/messages') => served.post(path, body, { headers: HEADERS });

describe('POST /v1/messages', () => {
  it('answers a message', async () => {
    const response = await send({ ...ASK, system: 'Be short.' });
    expect(response.headers.get('request-id')).toMatch(/^req_/);
    expect(await response.json()).toEqual({
      id: expect.stringMatching(/^msg_/),
      type: 'message',
      role: 'assistant',
      model: 'pocket',
      content: [{ type: 'text', text: expect.stringContaining('Paris') }],
      stop_reason: 'end_turn',
      stop_sequence: null,
      usage: expect.objectContaining({ input_tokens: expect.any(Number), output_tokens: expect.any(Number) }),
    });
  });

  it('streams message_start to message_stop, each under its name', async () => {
    const events = await eventsOf(await send({ ...ASK, stream: true }));
    for (const { name, data } of events) expect(name).toBe((data as { type: string }).type);
    const names = events.map(({ name }) => name).filter((name, i, all) => name !== all[i - 1]);
    expect(names).toEqual([
      'message_start',
      'content_block_start',
      'content_block_delta',
      'content_block_stop',
      'message_delta',
      'message_stop',
    ]);
    const { message } = events[0]!.data as { message: { usage: { input_tokens: number }; content: unknown[] } };
    expect([message.content, message.usage.input_tokens]).toEqual([[], expect.any(Number)]);
    const text = events.map(({ data }) => (data as { delta?: { text?: string } }).delta?.text ?? '').join('');
    expect(text).toContain('Paris');
    expect(events.at(-2)!.data).toMatchObject({
      delta: { stop_reason: 'end_turn', stop_sequence: null },
      usage: { output_tokens: expect.any(Number) },
    });
    // What was found and what was computed, told apart at the end only.
    const { usage } = events.at(-2)!.data as { usage: Message['usage'] };
    expect(usage.input_tokens + usage.cache_read_input_tokens).toBe(message.usage.input_tokens);
  });

  it('pings by events while a prompt is prefilled', async () => {
    const messages = [{ role: 'user', content: newLong() }];
    const response = await send({ ...ASK, messages, max_tokens: 1, stream: true });
    served.passTime();
    const events = await eventsOf(response);
    expect(events.find(({ name }) => name === 'ping')?.data).toEqual({ type: 'ping' });
    expect(events.at(-2)!.data).toMatchObject({ delta: { stop_reason: 'max_tokens' } });
  });

  it('tells which stop sequence ended the answer', async () => {
    const body = await bodyOf<Message>(send({ ...ASK, stop_sequences: ['none', 'ris'] }));
    expect([body.stop_reason, body.stop_sequence]).toEqual(['stop_sequence', 'ris']);
    expect(body.content[0]!.text).not.toContain('ris');
  });

  it('takes blocks of text, thoughts, calls and their results, and refuses images', async () => {
    const messages = [
      { role: 'user', content: [{ type: 'text', text: 'Look.', cache_control: { type: 'ephemeral' } }] },
      {
        role: 'assistant',
        content: [
          { type: 'thinking', thinking: 'Hm.', signature: 's' },
          { type: 'redacted_thinking', data: 'x' },
          { type: 'text', text: 'I look.' },
          { type: 'tool_use', id: 't1', name: 'look', input: { at: 'it' } },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'tool_result', tool_use_id: 't1', content: [{ type: 'text', text: 'found' }], is_error: true },
          { type: 'text', text: FRANCE[0]!.content },
        ],
      },
    ];
    const ignored = { metadata: { user_id: 'u' }, service_tier: 'auto', thinking: { type: 'disabled' }, top_k: 5 };
    const body = await bodyOf<Message>(send({ ...ASK, ...ignored, messages, tools: null }));
    expect(body.type).toBe('message');
    const image = [{ role: 'user', content: [{ type: 'image', source: {} }] }];
    const refused = await send({ ...ASK, messages: image });
    expect(refused.status).toBe(400);
    expect(await refused.json()).toMatchObject({
      type: 'error',
      error: { type: 'invalid_request_error', code: 'unsupported_content', param: 'messages[0].content[0].type' },
    });
  });

  it('counts tokens, without what Claude Code says of itself, which would change every prompt', async () => {
    const count = async (body: object) =>
      (await bodyOf<Message['usage']>(send(body, '/v1/messages/count_tokens'))).input_tokens;
    const { max_tokens: _, ...counted } = ASK;
    const system = [{ type: 'text', text: 'Be short.' }];
    const attribution = { type: 'text', text: 'x-anthropic-billing-header: cc_version=2.1; cch=ab12;' };
    const plain = await count({ ...counted, system });
    expect(await count({ ...counted, system: [attribution, ...system] })).toBe(plain);
    expect(await count(counted)).toBeLessThan(plain);
    const { usage } = await bodyOf<Message>(send({ ...ASK, system }));
    expect(usage.input_tokens + usage.cache_read_input_tokens).toBe(plain);
  });

  it('answers errors in the shape of either API', async () => {
    const locked = await servePocket({}, { apiKeys: ['secret'] });
    try {
      const response = await locked.post('/v1/messages', ASK, { headers: HEADERS });
      expect(response.status).toBe(401);
      expect(await response.json()).toMatchObject({ type: 'error', error: { type: 'authentication_error' } });
      const friend = await locked.post('/v1/messages', ASK, { headers: { 'x-api-key': 'secret' } });
      expect(friend.status).toBe(200);
      await friend.arrayBuffer();
    } finally {
      await locked.close();
    }
    const broken = await servePocket({ faultRanges: [[0, 2 ** 40]], maxResidentExperts: 40 });
    try {
      const failed = await broken.post('/v1/messages', ASK);
      expect([failed.status, (await bodyOf<{ error: { type: string } }>(failed)).error.type]).toEqual([
        500,
        'api_error',
      ]);
      const events = await eventsOf(await broken.post('/v1/messages', { ...ASK, stream: true }));
      expect(events.at(-1)).toMatchObject({ name: 'error', data: { type: 'error', error: { type: 'api_error' } } });
      const responses = await eventsOf(await broken.post('/v1/responses', { input: 'x', stream: true }));
      expect(responses.at(-1)).toMatchObject({
        name: 'response.failed',
        data: { response: { status: 'failed', error: { code: 'expert_read_failed' } } },
      });
    } finally {
      await broken.close();
    }
  });
});
