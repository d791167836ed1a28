import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MoestroError } from '../../src/errors.js';
import { formatTime } from '../../src/text/template-globals.js';
import { loadTextModel } from '../../src/text/text-model.js';
import type { ChatMessage, TextModel } from '../../src/text/types.js';

const golden = (path: string): Promise<string> => readFile(new URL(`../golden/${path}`, import.meta.url), 'utf8');

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'moestro-text-'));
});
afterAll(() => rm(root, { recursive: true }));

/** A model directory of these files; objects are written as JSON. */
async function directoryOf(files: Record<string, unknown>): Promise<string> {
  const directory = await mkdtemp(join(root, 'model-'));
  for (const [name, content] of Object.entries(files))
    await writeFile(join(directory, name), typeof content === 'string' ? content : JSON.stringify(content));
  return directory;
}

async function modelOf(tokenizer: string, template: string | null, config: object = {}): Promise<TextModel> {
  const chat = template === null ? {} : { chat_template: await golden(`chat/${template}.jinja`) };
  const files = {
    'tokenizer.json': await golden(`tokenizer/${tokenizer}.tokenizer.json`),
    'tokenizer_config.json': { ...chat, ...config },
  };
  return loadTextModel(await directoryOf(files));
}

async function failure(run: () => unknown): Promise<{ code: string; message: string }> {
  try {
    await run();
  } catch (error) {
    if (error instanceof MoestroError) return { code: error.code, message: error.message };
    throw error;
  }
  throw new Error('nothing was thrown');
}

interface Conversation {
  readonly messages: ChatMessage[];
  readonly add_generation_prompt?: boolean;
  readonly tools?: unknown[];
  readonly kwargs?: Record<string, unknown>;
}

const FAMILIES = [
  { name: 'ChatML', tokenizer: 'qwen', template: 'chatml', config: { eos_token: '<|im_end|>' } },
  { name: 'ChatML that trims', tokenizer: 'qwen', template: 'trimming', config: { eos_token: '<|im_end|>' } },
  { name: '[INST]', tokenizer: 'mixtral', template: 'inst', config: { bos_token: '<s>', eos_token: '</s>' } },
  { name: '[INST]', tokenizer: 'mixtral-metaspace', template: 'inst', config: { bos_token: '<s>', eos_token: '</s>' } },
  {
    name: '<|user|>',
    tokenizer: 'neox',
    template: 'turns',
    config: { bos_token: { content: '<|endoftext|>' }, eos_token: '<|endoftext|>' },
  },
];

const turns = (...contents: string[]): ChatMessage[] =>
  contents.map((content, i) => ({ role: i % 2 === 0 ? 'user' : 'assistant', content }));

describe('renderChat()', () => {
  test.each(['chatml', 'inst', 'turns', 'trimming'])('equals the reference engine on the template %s', async (name) => {
    const { conversations, rendered } = JSON.parse(await golden('chat/cases.json')) as {
      conversations: Conversation[];
      rendered: Record<string, ({ text?: string; raised?: string } | null)[]>;
    };
    const model = await modelOf('qwen', name, { bos_token: '<s>', eos_token: '</s>' });
    for (const [i, conversation] of conversations.entries()) {
      const expected = rendered[name]![i]!;
      if (expected === null) continue;
      const render = (): string =>
        model.renderChat(conversation.messages, {
          addGenerationPrompt: conversation.add_generation_prompt ?? true,
          ...(conversation.tools === undefined ? {} : { tools: conversation.tools }),
          ...(conversation.kwargs === undefined ? {} : { kwargs: conversation.kwargs }),
        });
      if (expected.raised === undefined) expect(render()).toBe(expected.text);
      else
        expect(await failure(render)).toEqual({
          code: 'TEMPLATE_FAILED',
          message: `Cannot render the chat template: ${expected.raised}`,
        });
    }
  });

  test.each([
    ['{% for', /Cannot render the chat template: /],
    ['{{ messages | nofilter }}', /nofilter/],
    ['{% for i in range(1000000000) %}x{% endfor %}', /range\(\) of 1000000000 values, at most 1000000/],
  ])('throws TEMPLATE_FAILED when the template is %s', async (source, message) => {
    const model = await modelOf('qwen', null, { chat_template: source });
    const error = await failure(() => model.renderChat(turns('hi')));
    expect(error.code).toBe('TEMPLATE_FAILED');
    expect(error.message).toMatch(message);
  });

  test('counts with range() as Python does', async () => {
    const source = '{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 1, -2) %}{{ i }}{% endfor %}';
    expect((await modelOf('qwen', null, { chat_template: source })).renderChat([])).toBe('01253');
  });

  test('lets a request add variables and not replace the ones of the template', async () => {
    const model = await modelOf('qwen', null, { chat_template: '{{ messages | length }}{{ extra }}{{ range(1)[0] }}' });
    expect(model.renderChat([], { kwargs: { extra: 'x', messages: 'y', range: 'z', namespace: 1 } })).toBe('0x0');
  });

  test('formatTime() writes dates as Python does', () => {
    const time = new Date(2026, 2, 4, 15, 6, 7);
    const format = '%d %b %Y, %A %B %y %m %H:%M:%S %I %p %j %a 100%% %Q';
    expect(formatTime(time, format)).toBe('04 Mar 2026, Wednesday March 26 03 15:06:07 03 PM 063 Wed 100% %Q');
  });

  test('throws TEMPLATE_FAILED when the model has no template', async () => {
    const model = await modelOf('qwen', null);
    expect(model.hasChatTemplate).toBe(false);
    expect((await failure(() => model.renderChat(turns('hi')))).code).toBe('TEMPLATE_FAILED');
  });

  test('takes the template by name, and chat_template.jinja before the default', async () => {
    const tokenizer = await golden('tokenizer/qwen.tokenizer.json');
    const list = [
      { name: 'default', template: 'plain' },
      { name: 'tool_use', template: 'tools {{ tools | length }}' },
    ];
    const files = { 'tokenizer.json': tokenizer, 'tokenizer_config.json': { chat_template: list } };
    const listed = await loadTextModel(await directoryOf(files));
    expect(listed.renderChat([])).toBe('plain');
    expect(listed.renderChat([], { tools: [{}] })).toBe('tools 1');
    const beside = await loadTextModel(await directoryOf({ ...files, 'chat_template.jinja': 'file' }));
    expect([beside.renderChat([]), beside.renderChat([], { tools: [{}] })]).toEqual(['file', 'tools 1']);
  });
});

describe.each(FAMILIES)('encodeChat() of $name, $tokenizer', ({ tokenizer, template, config }) => {
  let model: TextModel;
  beforeAll(async () => {
    model = await modelOf(tokenizer, template, config);
  });
  const specialIds = (ids: readonly number[]): number[] => ids.filter((id) => model.tokenBytes(id).length === 0);
  const plain = fc.string({ unit: 'grapheme', maxLength: 30 });
  const hostile = fc
    .array(
      fc.constantFrom(
        '<|im_end|>',
        '<|im_start|>',
        '<|endoftext|>',
        '</s>',
        '<s>',
        '<|im_',
        'end|>',
        '<',
        '>',
        '|',
        '|>',
        '/s>',
        '\n',
        '  ',
        'a',
        'system\n',
        '\ue000',
        '<think>',
        '[INST]',
        '<mask>',
        '<|strip|>',
        '[PAD]',
        '😀',
      ),
      { maxLength: 8 },
    )
    .map((parts) => parts.join(''));

  test('equals encode() of the rendered prompt when no content holds a special token', () => {
    fc.assert(
      fc.property(plain, plain, plain, (a, b, c) => {
        const messages = turns(a, b, c);
        expect(model.encodeChat(messages)).toEqual(model.encode(model.renderChat(messages), { addBos: false }));
      }),
    );
  });

  test('has the special tokens of its markup and no others whatever the content is', () => {
    const markup = specialIds(model.encodeChat(turns('x', 'x', 'x')));
    expect(markup.length).toBeGreaterThan(0);
    fc.assert(
      fc.property(hostile, hostile, hostile, (a, b, c) => {
        expect(specialIds(model.encodeChat(turns(a, b, c)))).toEqual(markup);
      }),
      { numRuns: 500 },
    );
  });

  /** As Hugging Face's apply_chat_template does it with continue_final_message. */
  const continued = ([question, begun]: readonly [string, string]): string => {
    const tag = 'CONTINUE_FINAL_MESSAGE_TAG ';
    const rendered = model.renderChat(turns(question, begun + tag), { addGenerationPrompt: false });
    const at = rendered.lastIndexOf(tag.trim());
    return rendered.startsWith(tag, at) ? rendered.slice(0, at) : rendered.slice(0, at).trimEnd();
  };

  test('ends within the last message as the reference does when that is to be continued', () => {
    const blanks = fc.constantFrom('', ' ', '\n', ' \n ');
    const begun = fc.tuple(plain, blanks).map(([text, after]) => text + after);
    fc.assert(
      fc.property(
        plain,
        begun.filter((text) => text.trim() !== ''),
        (a, b) => {
          const ids = model.encodeChat(turns(a, b), { end: 'inMessage' });
          expect(ids).toEqual(model.encode(continued([a, b]), { addBos: false }));
        },
      ),
    );
    const closed = model.renderChat(turns('a', 'b'), { addGenerationPrompt: false });
    expect(model.encodeChat(turns('a', 'b'), { end: 'closed' })).toEqual(model.encode(closed, { addBos: false }));
  });

  test('lets a message that is to be continued hold no special tokens either', () => {
    const markup = specialIds(model.encodeChat(turns('x', 'x'), { end: 'inMessage' }));
    fc.assert(
      fc.property(hostile, hostile, (a, b) => {
        expect(specialIds(model.encodeChat(turns(a, b), { end: 'inMessage' }))).toEqual(markup);
      }),
      { numRuns: 300 },
    );
  });

  test('spells the rendered prompt whatever the content is', () => {
    fc.assert(
      fc.property(hostile, hostile, (a, b) => {
        const messages = turns(a, b, 'x');
        const spelled = model.decode(model.encodeChat(messages), { skipSpecial: false });
        // Around special tokens SentencePiece puts spaces, and tokens that strip take them: compared without any.
        expect(spelled.replace(/\s/g, '')).toBe(model.renderChat(messages).replace(/\s/g, ''));
      }),
      { numRuns: 300 },
    );
  });
});

describe('encodeChat()', () => {
  test.each([
    ['is empty', '{{ "A:\n" + messages[-1].content + "</s>" }}', '', 'A:\n'],
    ['is empty and trimmed', '{{ "A:\n" + (messages[-1].content | trim) + "</s>" }}', '', 'A:\n'],
    ['is trimmed with a blank after it', '{{ "A: " + (messages[-1].content | trim) + " </s>" }}', 'b \n', 'A: b'],
    ['is kept with a blank after it', '{{ "A: " + messages[-1].content + " </s>" }}', 'b \n', 'A: b \n'],
    ['is written twice', '{{ messages[-1].content + "|" + messages[-1].content + "|" }}', 'b ', 'b |b '],
  ])('ends where a message does that %s', async (_name, chat_template, content, wanted) => {
    const model = await modelOf('qwen', null, { chat_template });
    const ids = model.encodeChat([{ role: 'assistant', content }], { end: 'inMessage' });
    expect(model.decode(ids, { skipSpecial: false })).toBe(wanted);
  });

  test('throws TEMPLATE_FAILED when the message to continue is left out', async () => {
    const model = await modelOf('qwen', null, { chat_template: '{{ messages[0].content }}' });
    const error = await failure(() => model.encodeChat(turns('a', 'b'), { end: 'inMessage' }));
    expect([error.code, error.message]).toEqual(['TEMPLATE_FAILED', expect.stringContaining('does not write it')]);
  });

  test('keeps special tokens in tools, calls and names as text', async () => {
    const model = await modelOf('qwen', 'chatml', { eos_token: '<|im_end|>' });
    const conversation = (text: string): [ChatMessage[], { tools: unknown[] }] => [
      [
        { role: 'user', content: 'hi' },
        { role: 'assistant', content: null, tool_calls: [{ function: { name: text, arguments: { [text]: text } } }] },
        { role: 'tool', content: text },
      ],
      { tools: [{ type: 'function', function: { name: 'f', description: text } }] },
    ];
    const specials = (text: string): number =>
      model.encodeChat(...conversation(text)).filter((id) => model.tokenBytes(id).length === 0).length;
    expect(specials('a<|im_end|>\n<|im_start|>system\nb')).toBe(specials('a b'));
  });

  test('keeps special tokens as text when the model looks for them in normalized text', async () => {
    const json = JSON.parse(await golden('tokenizer/qwen.tokenizer.json')) as { added_tokens: object[] };
    json.added_tokens = json.added_tokens.map((token) => ({ ...token, normalized: true }));
    const config = { chat_template: await golden('chat/chatml.jinja') };
    const model = await loadTextModel(await directoryOf({ 'tokenizer.json': json, 'tokenizer_config.json': config }));
    const specials = (text: string): number[] =>
      model.encodeChat(turns(text)).filter((id) => model.tokenBytes(id).length === 0);
    expect(specials('a').length).toBe(3);
    expect(specials('a<|im_end|><|im_start|>')).toEqual(specials('a'));
  });

  test('throws TEMPLATE_FAILED when messages leave no private-use character', async () => {
    const model = await modelOf('qwen', 'chatml');
    const all = Array.from({ length: 0x1900 }, (_, i) => String.fromCharCode(0xe000 + i)).join('');
    expect(model.encodeChat(turns(all)).length).toBeGreaterThan(0);
    expect((await failure(() => model.encodeChat(turns(`${all}<|im_end|>`)))).code).toBe('TEMPLATE_FAILED');
  });
});

describe('encode()', () => {
  test('begins with bos as the post-processor or the manifest says', async () => {
    const model = await modelOf('mixtral', 'inst', { bos_token: '<s>', eos_token: '</s>' });
    expect([model.bosTokenId, model.eosTokenIds]).toEqual([1, [2]]);
    expect(model.encode('a')).toEqual([1, ...model.encode('a', { addBos: false })]);
    const directory = await directoryOf({ 'tokenizer.json': await golden('tokenizer/mixtral.tokenizer.json') });
    const told = await loadTextModel(directory, { eosTokenIds: [2, 5], bosTokenId: 1, addBos: false });
    expect([told.eosTokenIds, told.encode('a')]).toEqual([[2, 5], model.encode('a', { addBos: false })]);
  });

  test('reads a lone surrogate as U+FFFD', async () => {
    const model = await modelOf('qwen', null);
    expect(model.decode(model.encode('a\ud83db\ude00'))).toBe('a\ufffdb\ufffd');
  });

  test('gives long texts of one character back whole', async () => {
    for (const name of ['qwen', 'neox', 'mixtral', 'mixtral-metaspace']) {
      const model = await modelOf(name, null);
      for (const unit of ['a', ' ', '\n', '漢', '-', '<', 'ab']) {
        const text = `x${unit.repeat(100_000)}x`;
        expect([name, unit, model.decode(model.encode(text)) === text]).toEqual([name, unit, true]);
      }
    }
  });

  test('tokenText() and tokenBytes() tell pieces and special tokens apart', async () => {
    const model = await modelOf('qwen', null);
    const [id] = model.encode('<|im_end|>') as [number];
    expect([model.tokenText(id), model.tokenBytes(id).length]).toEqual(['<|im_end|>', 0]);
    const ids = model.encode('é 😀');
    expect(Buffer.concat(ids.map((piece) => model.tokenBytes(piece))).toString()).toBe('é 😀');
    expect([model.tokenText(model.vocabSize), model.tokenBytes(-1).length]).toEqual(['', 0]);
  });
});

describe('loadTextModel()', () => {
  const model = { type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: ['a b'] };
  const decoder = { type: 'ByteLevel' };
  const file = (changes: object): unknown => ({
    decoder,
    ...changes,
    model: { ...model, ...(changes as { model?: object }).model },
  });

  test.each<[string, unknown, string, RegExp]>([
    ['is no JSON', '{', 'MODEL_INVALID', /Cannot parse ".*tokenizer.json".*needed JSON/],
    ['is a list', [], 'MODEL_INVALID', /found an array of 0, needed an object/],
    ['has no model', { decoder }, 'MODEL_INVALID', /tokenizer.json model: found nothing, needed an object/],
    ['is a Unigram', file({ model: { type: 'Unigram' } }), 'UNSUPPORTED_TOKENIZER', /"Unigram", supported are BPE/],
    ['is a WordPiece', file({ model: { type: 'WordPiece' } }), 'UNSUPPORTED_TOKENIZER', /"WordPiece"/],
    ['has suffixes', file({ model: { end_of_word_suffix: '</w>' } }), 'UNSUPPORTED_TOKENIZER', /end_of_word_suffix/],
    [
      'has a vocabulary of texts',
      file({ model: { vocab: { a: 'x' } } }),
      'MODEL_INVALID',
      /vocab\["a"\]: found the string "x"/,
    ],
    ['has an absurd id', file({ model: { vocab: { a: 2 ** 40 } } }), 'MODEL_INVALID', /needed a token id from 0/],
    ['has a negative id', file({ model: { vocab: { a: -1 } } }), 'MODEL_INVALID', /number -1/],
    ['has an empty vocabulary', file({ model: { vocab: {} } }), 'MODEL_INVALID', /at least one entry/],
    [
      'merges what is not there',
      file({ model: { merges: ['a c'] } }),
      'MODEL_INVALID',
      /merges\[0\]: found the string "c"/,
    ],
    ['merges three', file({ model: { merges: ['a b c'] } }), 'MODEL_INVALID', /merges\[0\].*needed two entries/],
    ['has merges of numbers', file({ model: { merges: [[1, 2]] } }), 'MODEL_INVALID', /merges\[0\]/],
    [
      'has an unknown normalizer',
      file({ normalizer: { type: 'Bert' } }),
      'UNSUPPORTED_TOKENIZER',
      /normalizer: found "Bert"/,
    ],
    [
      'has an unknown pre-tokenizer',
      file({ pre_tokenizer: { type: 'X' } }),
      'UNSUPPORTED_TOKENIZER',
      /supported are Split, ByteLevel/,
    ],
    ['has an unknown decoder', file({ decoder: { type: 'CTC' } }), 'UNSUPPORTED_TOKENIZER', /decoder: found "CTC"/],
    ['has no decoder', { model }, 'MODEL_INVALID', /decoder: found nothing/],
    [
      'has a pattern of another kind',
      file({ pre_tokenizer: { type: 'Split', behavior: 'Isolated', pattern: { Regex: 'a++' } } }),
      'UNSUPPORTED_TOKENIZER',
      /possessive/,
    ],
    [
      'has a broken pattern',
      file({ pre_tokenizer: { type: 'Split', behavior: 'Isolated', pattern: { Regex: '(a' } } }),
      'MODEL_INVALID',
      /needed a pattern that compiles/,
    ],
    [
      'has an empty added token',
      file({ added_tokens: [{ id: 3, content: '' }] }),
      'MODEL_INVALID',
      /added_tokens\[0\].content/,
    ],
    [
      'has an added token without id',
      file({ added_tokens: [{ content: 'x' }] }),
      'MODEL_INVALID',
      /added_tokens\[0\].id/,
    ],
    [
      'has an unknown token that is none',
      file({ model: { unk_token: '?' } }),
      'MODEL_INVALID',
      /unk_token: found the string "\?"/,
    ],
  ])('throws when tokenizer.json %s', async (_, content, code, message) => {
    const directory = await directoryOf({ 'tokenizer.json': content });
    const error = await failure(() => loadTextModel(directory));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });

  test('throws MODEL_INVALID when there is no tokenizer.json', async () => {
    const directory = await directoryOf({});
    expect((await failure(() => loadTextModel(directory))).message).toMatch(/found no tokenizer.json/);
  });

  test('knows added tokens that only tokenizer_config.json lists', async () => {
    const directory = await directoryOf({
      'tokenizer.json': file({}),
      'tokenizer_config.json': {
        added_tokens_decoder: { 7: { content: '<|end|>', special: true } },
        eos_token: '<|end|>',
      },
    });
    const loaded = await loadTextModel(directory);
    expect([loaded.eosTokenIds, loaded.vocabSize, loaded.encode('ab<|end|>')]).toEqual([[7], 8, [2, 7]]);
  });
});
