import { Tokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { ErrorCode } from '../../../src/errors.js';
import { ggufVocabulary } from '../../../src/model/import/gguf-vocabulary.js';
import { ggufMetadata } from '../../helpers/tiny-gguf.js';
import { tokenizerConfigJson, tokenizerJson } from '../../helpers/tiny-hugging-face.js';
import { makeTinyModel, type TinyFamily } from '../../helpers/tiny-models.js';

const metadataOf = (family: TinyFamily, changes: Record<string, unknown> = {}): Map<string, unknown> => {
  const entries = Object.entries(ggufMetadata(makeTinyModel(family, 1, { layerCount: 1, layerKinds: ['moe'] }), 'F16'));
  const changed = Object.entries(changes).map(([key, value]) => [`tokenizer.ggml.${key}`, value] as const);
  return new Map([...entries.map(([key, { value }]) => [key, value] as const), ...changed]);
};

test.each<TinyFamily>(['qwen3_moe', 'olmoe', 'mixtral'])(
  'ggufVocabulary() writes the tokenizer.json that Hugging Face has for a tiny %s',
  (family) => {
    const { vocabulary } = makeTinyModel(family);
    const ours = ggufVocabulary(metadataOf(family));
    expect(JSON.parse(ours.tokenizerJson)).toEqual(tokenizerJson(vocabulary));
    const { tokenizer_class: _class, ...config } = tokenizerConfigJson(vocabulary);
    expect(JSON.parse(ours.tokenizerConfigJson)).toMatchObject(config);
    expect(ours.tokenCount).toBe(vocabulary.tokens.length);
    expect(ours.generation).toEqual({
      eosTokenIds: [vocabulary.eosId],
      bosTokenId: vocabulary.bosId,
      addBos: vocabulary.addBos,
    });
  },
);

test('ggufVocabulary() gives ids that llama.cpp gives for the same file', () => {
  // Ids from llama.cpp (node-llama-cpp 3.22.1): model.tokenize('the king and the sea', false).
  const encode = (family: TinyFamily) => {
    const { tokenizerJson: tokenizer, tokenizerConfigJson: config } = ggufVocabulary(metadataOf(family));
    const reader = new Tokenizer(JSON.parse(tokenizer), JSON.parse(config));
    return reader.encode('the king and the sea', { add_special_tokens: false }).ids;
  };
  expect(encode('qwen3_moe')).toEqual([116, 257, 32, 107, 272, 276, 264, 265, 101, 97]);
  expect(encode('mixtral')).toEqual([267, 289, 311, 275, 279, 267, 268, 290, 292]);
});

type Pieces = ReadonlyMap<string, number>;

/** SentencePiece: join the neighbours whose joined piece scores highest, the leftmost of equals, until none is left. */
function joinByScore(text: string, scores: Pieces): string[] {
  const parts = [...text];
  for (;;) {
    let best = -1;
    for (let i = 0; i + 1 < parts.length; i++) {
      const score = scores.get(parts[i]! + parts[i + 1]!);
      const bestScore = best < 0 ? Number.NEGATIVE_INFINITY : scores.get(parts[best]! + parts[best + 1]!)!;
      if (score !== undefined && score > bestScore) best = i;
    }
    if (best < 0) return parts;
    parts.splice(best, 2, parts[best]! + parts[best + 1]!);
  }
}

/** BPE: the same by the rank of the pair. */
function joinByRank(text: string, ranks: Pieces): string[] {
  const parts = [...text];
  for (;;) {
    let best = -1;
    for (let i = 0; i + 1 < parts.length; i++) {
      const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Number.POSITIVE_INFINITY;
      const bestRank = best < 0 ? Number.POSITIVE_INFINITY : ranks.get(`${parts[best]} ${parts[best + 1]}`)!;
      if (rank < bestRank) best = i;
    }
    if (best < 0) return parts;
    parts.splice(best, 2, parts[best]! + parts[best + 1]!);
  }
}

test('ggufVocabulary() derives merges that cut text as SentencePiece does when scores differ', () => {
  const letters = ['▁', 'a', 'b', 'c', '🙂'];
  const piece = fc.array(fc.constantFrom(...letters), { minLength: 2, maxLength: 5 }).map((parts) => parts.join(''));
  const vocabularies = fc.uniqueArray(piece, { minLength: 3, maxLength: 40 });
  const texts = fc.array(fc.constantFrom(...letters), { maxLength: 24 }).map((parts) => parts.join(''));
  fc.assert(
    fc.property(vocabularies, texts, (pieces, text) => {
      const tokens = ['<unk>', ...letters, ...pieces];
      const scores = tokens.map((_, id) => (id <= letters.length ? -1000 - id : -id));
      const { tokenizerJson: json } = ggufVocabulary(
        new Map<string, unknown>([
          ['tokenizer.ggml.model', 'llama'],
          ['tokenizer.ggml.tokens', tokens],
          ['tokenizer.ggml.scores', scores],
          ['tokenizer.ggml.token_type', tokens.map((_, id) => (id === 0 ? 2 : 1))],
        ]),
      );
      const merges = JSON.parse(json).model.merges as [string, string][];
      const ranks = new Map(merges.map((pair, rank) => [pair.join(' '), rank]));
      const byScore = new Map(tokens.map((token, id) => [token, scores[id]!]));
      expect(joinByRank(text, ranks)).toEqual(joinByScore(text, byScore));
    }),
    { numRuns: 500, seed: 22 },
  );
});

test('ggufVocabulary() keeps user-defined tokens visible and tokens with odd names', () => {
  const { tokens, types } = makeTinyModel('olmoe').vocabulary;
  const metadata = metadataOf('olmoe', {
    tokens: [...tokens, '    ', '__proto__', 'constructor', '[PAD1]'],
    token_type: [...types, 4, 1, 1, 5],
  });
  const tokenizer = JSON.parse(ggufVocabulary(metadata).tokenizerJson);
  const spaces = tokenizer.added_tokens.find(({ content }: { content: string }) => content === '    ');
  expect(spaces).toMatchObject({ id: tokens.length, special: false });
  expect(Object.entries(tokenizer.model.vocab)).toContainEqual(['__proto__', tokens.length + 1]);
  expect(tokenizer.model.vocab).not.toHaveProperty(['    ']);
  expect(tokenizer.model.vocab['[PAD1]']).toBe(tokens.length + 3);
});

test('ggufVocabulary() collects the ends of turn and ignores ids past the vocabulary', () => {
  const { generation } = ggufVocabulary(
    metadataOf('qwen3_moe', { eot_token_id: 3, eom_token_id: 3, bos_token_id: 4294967295, add_bos_token: true }),
  );
  expect(generation).toEqual({
    eosTokenIds: [makeTinyModel('qwen3_moe').vocabulary.eosId, 3],
    bosTokenId: null,
    addBos: false,
  });
});

test('ggufVocabulary() drops the space before text when the file says so', () => {
  const tokenizer = JSON.parse(ggufVocabulary(metadataOf('mixtral', { add_space_prefix: false })).tokenizerJson);
  expect(JSON.stringify(tokenizer.normalizer)).not.toContain('Prepend');
  expect(JSON.stringify(tokenizer.decoder)).not.toContain('Strip');
});

test.each(['qwen2', 'olmo', 'gpt-2', 'llama-bpe', 'dbrx', 'default'])(
  'ggufVocabulary() makes pre-tokenizer %s, whose patterns leave no character out',
  (pre) => {
    const { tokenizerJson: json } = ggufVocabulary(metadataOf('qwen3_moe', { pre }));
    const text = "It's 12345 £ мир ＋ 日本語!!\r\n\n  x\t\u00a0\u3000\u200b🙂 ";
    const splits = JSON.parse(json).pre_tokenizer.pretokenizers.slice(0, -1) as { pattern: { Regex: string } }[];
    expect(splits.length).toBeGreaterThan(0);
    const gaps = splits.map(({ pattern }) => text.replace(new RegExp(withoutInlineFlags(pattern.Regex), 'gu'), ''));
    // Pattern lists cut one after the other; the one that matches everything is among them.
    expect(gaps).toContain('');
  },
);

/** JavaScript of this age has no (?i:...). */
const withoutInlineFlags = (regex: string): string =>
  regex.replace(/\(\?i:([^)]*)\)/, (_, body: string) => `(?:${body}|${body.toUpperCase()})`);

test.each<[string, TinyFamily, Record<string, unknown>, ErrorCode, RegExp]>([
  [
    'an unknown model',
    'qwen3_moe',
    { model: 'bert' },
    'UNSUPPORTED_TOKENIZER',
    /is "bert", supported are "gpt2" and "llama"/,
  ],
  ['no model', 'qwen3_moe', { model: undefined }, 'UNSUPPORTED_TOKENIZER', /is null/],
  [
    'an unknown pre-tokenizer',
    'qwen3_moe',
    { pre: 'tekken' },
    'UNSUPPORTED_TOKENIZER',
    /"tekken", supported are qwen2.*default/,
  ],
  ['no tokens', 'qwen3_moe', { tokens: [] }, 'SOURCE_INVALID', /tokens is not a list/],
  ['tokens that are numbers', 'qwen3_moe', { tokens: [1, 2] }, 'SOURCE_INVALID', /tokens is not a list/],
  [
    'equal tokens',
    'qwen3_moe',
    { tokens: ['a', 'b', 'a'], token_type: [1, 1, 1] },
    'SOURCE_INVALID',
    /tokens 0 and 2 are both "a"/,
  ],
  ['too few types', 'qwen3_moe', { token_type: [1] }, 'SOURCE_INVALID', /token_type is not a list of/],
  ['no merges', 'qwen3_moe', { merges: undefined }, 'SOURCE_INVALID', /merges is not a list/],
  ['a merge of one token', 'qwen3_moe', { merges: ['abc'] }, 'SOURCE_INVALID', /merge "abc"/],
  ['a merge to nothing', 'qwen3_moe', { merges: ['a z'] }, 'SOURCE_INVALID', /merge "a z"/],
  ['no scores', 'mixtral', { scores: undefined }, 'SOURCE_INVALID', /scores is not a list/],
  [
    'scores that are no numbers',
    'mixtral',
    { scores: makeTinyModel('mixtral').vocabulary.tokens.map(() => Number.NaN) },
    'SOURCE_INVALID',
    /scores/,
  ],
  ['an end that is no id', 'qwen3_moe', { eos_token_id: -1 }, 'SOURCE_INVALID', /eos_token_id is not an id/],
  [
    'an endless piece',
    'mixtral',
    { tokens: ['x'.repeat(300)], token_type: [1], scores: [0] },
    'SOURCE_INVALID',
    /more than 256 characters/,
  ],
])('ggufVocabulary() refuses %s', (_, family, changes, code, message) => {
  expect(() => ggufVocabulary(metadataOf(family, changes))).toThrow(
    expect.objectContaining({ code, message: expect.stringMatching(message) }),
  );
});
