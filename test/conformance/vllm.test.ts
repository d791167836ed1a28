/** Fields that clients of vLLM and llama.cpp send beside those of OpenAI, through the real server. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bodyOf, FRANCE, type Served, servePocket } from './served.js';

let served: Served;
beforeAll(async () => {
  served = await servePocket();
});
afterAll(() => served.close());

interface Choice {
  readonly message: { readonly content: string; readonly tool_calls?: readonly object[] };
  readonly text: string;
  readonly finish_reason: string;
}
interface Answered extends Choice {
  readonly tokens: number;
}

/** The only choice of an answer, and how many tokens it took. */
async function ask(body: object, path = '/v1/chat/completions'): Promise<Answered> {
  const response = await served.post(path, { model: 'pocket', ...body });
  const answer = await bodyOf<{ choices: Choice[]; usage: { completion_tokens: number } }>(response);
  expect([response.status, answer]).toMatchObject([200, {}]);
  return { ...answer.choices[0]!, tokens: answer.usage.completion_tokens };
}

async function refusal(body: object, path = '/v1/chat/completions'): Promise<unknown> {
  const response = await served.post(path, { model: 'pocket', ...body });
  const { error } = await bodyOf<{ error: { param: string } }>(response);
  return [response.status, error.param];
}

const idsOf = async (content: string): Promise<number[]> =>
  (await bodyOf<{ tokens: number[] }>(served.post('/tokenize', { content }))).tokens;
const textOf = async (tokens: readonly number[]): Promise<string> =>
  (await bodyOf<{ content: string }>(served.post('/detokenize', { tokens }))).content;

const CHAT = { messages: FRANCE };

describe('min_tokens', () => {
  it('goes on until so many tokens are written, with the tokens that would have come first', async () => {
    const free = await ask(CHAT);
    const longer = await ask({ ...CHAT, min_tokens: free.tokens + 7, max_tokens: free.tokens + 30 });
    expect(longer.tokens).toBeGreaterThanOrEqual(free.tokens + 7);
    expect(longer.message.content.startsWith(free.message.content)).toBe(true);
    expect(await ask({ ...CHAT, min_tokens: free.tokens })).toEqual(free);
    expect(await ask({ ...CHAT, min_tokens: 0 })).toEqual(free);
    // With logprobs, in company and in a plain completion too.
    const asked = { ...CHAT, min_tokens: free.tokens + 7, max_tokens: free.tokens + 30, logprobs: true, n: 2 };
    expect((await ask(asked)).message).toEqual(longer.message);
    const prompt = 'The capital of France is Paris.<|im_end|>';
    const plain = { prompt, min_tokens: 12, max_tokens: 12 };
    expect(await ask(plain, '/v1/completions')).toMatchObject({ tokens: 12, finish_reason: 'length' });
  });

  it('does not look for stop texts until then', async () => {
    const free = await ask(CHAT);
    const [whole, first] = [free.message.content, free.message.content.slice(0, 3)];
    expect((await ask({ ...CHAT, stop: first })).message.content).toBe('');
    expect(await ask({ ...CHAT, stop: first, min_tokens: free.tokens - 1 })).toMatchObject({
      message: { content: whole },
      finish_reason: 'stop',
    });
  });

  it('gives way to a format that only leaves the end', async () => {
    const answer = await ask({ ...CHAT, guided_choice: ['Paris', 'Rome'], min_tokens: 60 });
    expect(['Paris', 'Rome']).toContain(answer.message.content);
    expect(answer.finish_reason).toBe('stop');
    const number = await ask({ ...CHAT, guided_regex: '[0-9]{1,40}', min_tokens: 6, max_tokens: 50 });
    expect(number.tokens).toBeGreaterThanOrEqual(6);
    expect(number.message.content).toMatch(/^[0-9]{6,40}$/);
  });

  it('may not be above max_tokens', async () => {
    for (const body of [{ max_tokens: 3, min_tokens: 4 }, { min_tokens: -1 }, { min_tokens: 1.5 }]) {
      expect(await refusal({ ...CHAT, ...body })).toEqual([400, 'min_tokens']);
    }
    // Completions have 16 unless they say otherwise.
    expect(await refusal({ prompt: 'x', min_tokens: 17 }, '/v1/completions')).toEqual([400, 'min_tokens']);
  });
});

describe('stop_token_ids', () => {
  it('end the answer with stop, and stand in it as little as the end of a turn', async () => {
    const free = await ask(CHAT);
    const ids = await idsOf(free.message.content);
    const at = 3;
    expect(ids.indexOf(ids[at]!)).toBe(at);
    const cut = await ask({ ...CHAT, stop_token_ids: [ids[at]!] });
    expect(cut).toMatchObject({ finish_reason: 'stop', tokens: at });
    expect(cut.message.content).toBe((await textOf(ids.slice(0, at))).trimStart());
    const later = await ask({ ...CHAT, stop_token_ids: [ids[at]!], min_tokens: at + 1, max_tokens: 20 });
    expect(later.tokens).toBeGreaterThan(at);
    const prompt = 'The capital of France is';
    const plain = await ask({ prompt, max_tokens: 8 }, '/v1/completions');
    const [second] = (await idsOf(prompt + plain.text)).slice((await idsOf(prompt)).length + 1);
    const stopped = await ask({ prompt, max_tokens: 8, stop_token_ids: [second] }, '/v1/completions');
    expect(stopped).toMatchObject({ tokens: 1, finish_reason: 'stop' });
    expect(plain.text.startsWith(stopped.text)).toBe(true);
  });

  it('do not break a format: it is written with other tokens, or ends where there are none', async () => {
    const text = 'The capital of France is Paris, as everybody knows.';
    const format = { ...CHAT, guided_choice: [text] };
    const ids = await idsOf(text);
    for (const more of [{}, { logprobs: true }]) {
      const around = await ask({ ...format, ...more, stop_token_ids: [ids[4]!] });
      expect(around).toMatchObject({ finish_reason: 'stop', message: { content: text } });
    }
    // Each token that can begin the text.
    const beginnings = await Promise.all(['T', 'Th', 'The'].map(idsOf));
    const only = beginnings.filter((some) => some.length === 1).map(([id]) => id!);
    const ended = await ask({ ...format, stop_token_ids: only });
    expect(ended).toMatchObject({ finish_reason: 'stop', tokens: 0 });
  });

  it('have to be of the vocabulary, 64 at most', async () => {
    expect(await refusal({ ...CHAT, stop_token_ids: [1, 1 << 20] })).toEqual([400, 'stop_token_ids[1]']);
    expect(await refusal({ ...CHAT, stop_token_ids: [-1] })).toEqual([400, 'stop_token_ids[0]']);
    expect(await refusal({ ...CHAT, stop_token_ids: ['x'] })).toEqual([400, 'stop_token_ids[0]']);
    const many = Array.from({ length: 65 }, (_, id) => id);
    expect(await refusal({ ...CHAT, stop_token_ids: many })).toEqual([400, 'stop_token_ids']);
    expect(await refusal({ prompt: 'x', stop_token_ids: [-1] }, '/v1/completions')).toEqual([400, 'stop_token_ids[0]']);
  });
});

describe('t_max_predict_ms', () => {
  it('ends an answer with length when its time is over and a line is whole', async () => {
    // More tokens than may stand unread, so that some are computed after the first was read.
    const lines = (count: number) => ({ ...CHAT, guided_regex: `([a-z]{4}\\n){${count}}`, logprobs: true });
    const cut = await ask({ ...lines(100), t_max_predict_ms: 1 });
    expect(cut.finish_reason).toBe('length');
    expect(cut.message.content).toMatch(/^[a-z]{4}\n/);
    for (const t_max_predict_ms of [0, -1, 600_000, null]) {
      const whole = await ask({ ...lines(4), t_max_predict_ms });
      expect([whole.finish_reason, whole.message.content]).toEqual(['stop', expect.stringMatching(/^.{19}\n$/s)]);
    }
    expect(await ask({ ...CHAT, t_max_predict_ms: 1 })).toEqual(await ask(CHAT));
    expect(await refusal({ ...CHAT, t_max_predict_ms: -2 })).toEqual([400, 't_max_predict_ms']);
  });
});

describe('continue_final_message and add_generation_prompt', () => {
  const begun = (content: string) => ({ messages: [...FRANCE, { role: 'assistant', content }] });
  const continued = (content: string, more: object = {}) =>
    ask({ ...begun(content), continue_final_message: true, ...more });

  it('goes on with the last message, in the words the model would have used', async () => {
    const { message } = await ask(CHAT);
    const [one, two] = message.content.split(' ');
    for (const said of [one!, `${one} ${two}`]) {
      for (const more of [{}, { add_generation_prompt: false }]) {
        const rest = await continued(said, more);
        expect([said + rest.message.content, rest.finish_reason]).toEqual([message.content, 'stop']);
      }
    }
    const opened = await ask(begun(message.content.slice(0, 4)));
    expect(opened.message.content).not.toBe(message.content.slice(4));
  });

  it('reads the same prompt as its text in a completion', async () => {
    const said = 'The answer is';
    const prompt = `<|im_start|>user\n${FRANCE[0]!.content}<|im_end|>\n<|im_start|>assistant\n${said}`;
    const plain = await ask({ prompt, max_tokens: 6 }, '/v1/completions');
    const { message } = await continued(said, { max_tokens: 6 });
    expect(message.content).toBe(plain.text);
    const counted = await served.post('/tokenize', { ...begun(said), continue_final_message: true });
    expect(await counted.json()).toMatchObject({ tokens: await idsOf(prompt) });
  });

  it('opens no turn when add_generation_prompt is false', async () => {
    const tokens = async (more: object) =>
      (await bodyOf<{ tokens: number[] }>(served.post('/tokenize', { ...CHAT, ...more }))).tokens;
    const closed = await tokens({ add_generation_prompt: false });
    expect(await textOf(closed)).toBe(`<|im_start|>user\n${FRANCE[0]!.content}<|im_end|>\n`);
    expect((await tokens({})).slice(0, closed.length)).toEqual(closed);
    const response = await served.post('/v1/chat/completions', {
      ...CHAT,
      add_generation_prompt: false,
      max_tokens: 1,
    });
    expect(await response.json()).toMatchObject({ usage: { prompt_tokens: closed.length } });
  });

  it('refuses both at once, and to go on with what the assistant did not say', async () => {
    const refused = [400, 'continue_final_message'];
    const both = { ...begun('The'), continue_final_message: true, add_generation_prompt: true };
    expect(await refusal(both)).toEqual(refused);
    expect(await refusal({ ...CHAT, continue_final_message: true })).toEqual(refused);
    const call = { id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } };
    const calling = { role: 'assistant', content: null, tool_calls: [call] };
    expect(await refusal({ messages: [...FRANCE, calling], continue_final_message: true })).toEqual(refused);
  });

  it('is what /v1/messages does with a last message of the assistant', async () => {
    const { message } = await ask(CHAT);
    const said = message.content.slice(0, message.content.indexOf(' '));
    const answer = await served.post('/v1/messages', { ...begun(said), max_tokens: 40 });
    const { content } = await bodyOf<{ content: { text: string }[] }>(answer);
    expect(said + content[0]!.text).toBe(message.content);
  });
});
