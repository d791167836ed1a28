/**
 * A tokenizer.json and tokenizer_config.json from the vocabulary in a GGUF file, as Hugging Face would have written
 * them for the same model, so that text has one reader. Two kinds: "gpt2", byte-level BPE with merges listed, and
 * "llama", SentencePiece-style BPE with scores.
 * Sources: llama.cpp src/llama-vocab.cpp (what `pre` means, defaults), transformers convert_slow_tokenizer.py (layout).
 */
import { MoestroError } from '../../errors.js';
import type { SourceGeneration } from './source.js';

export interface GgufVocabulary {
  readonly tokenizerJson: string;
  readonly tokenizerConfigJson: string;
  readonly generation: SourceGeneration;
  readonly tokenCount: number;
}

const GPT2_SPLIT = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const wordsAndDigits = (digits: string): string =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

interface PreTokenizer {
  readonly names: readonly string[];
  /** Applied one after the other, each splitting the pieces of the one before. */
  readonly splits: readonly string[];
  readonly normalizer: null | { readonly type: 'NFC' };
  /** A word that is a token is taken whole, without its merges. */
  readonly ignoreMerges: boolean;
  readonly addBos: boolean;
}

/** tokenizer.ggml.pre. llama.cpp itself never normalises; the originals of Qwen and OLMo do (NFC), so we do. */
const PRE_TOKENIZERS: readonly PreTokenizer[] = [
  {
    names: ['qwen2'],
    splits: [wordsAndDigits('\\p{N}')],
    normalizer: { type: 'NFC' },
    ignoreMerges: false,
    addBos: false,
  },
  { names: ['olmo'], splits: [GPT2_SPLIT], normalizer: { type: 'NFC' }, ignoreMerges: false, addBos: false },
  { names: ['gpt-2', 'gpt2'], splits: [GPT2_SPLIT], normalizer: null, ignoreMerges: false, addBos: false },
  {
    names: ['llama-bpe', 'llama3', 'llama-v3'],
    splits: [wordsAndDigits('\\p{N}{1,3}')],
    normalizer: null,
    ignoreMerges: true,
    addBos: true,
  },
  { names: ['dbrx'], splits: [wordsAndDigits('\\p{N}{1,3}')], normalizer: null, ignoreMerges: false, addBos: false },
  {
    names: ['default'],
    splits: ['[\\p{P}\\$\\+<=>\\^~\\|]+', GPT2_SPLIT, '\\p{N}+', '[0-9][0-9][0-9]'],
    normalizer: null,
    ignoreMerges: false,
    addBos: false,
  },
];

const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const MAX_TOKENS = 1 << 20;
/** Finding the halves of a piece is quadratic in its length; SentencePiece's own default limit is 16. */
const MAX_PIECE_CHARACTERS = 256;

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: readonly number[];
  readonly ids: ReadonlyMap<string, number>;
}

type Metadata = ReadonlyMap<string, unknown>;

/** Throws UNSUPPORTED_TOKENIZER for a model or pre-tokenizer it does not know, SOURCE_INVALID for a broken vocabulary. */
export function ggufVocabulary(metadata: Metadata): GgufVocabulary {
  const model = metadata.get('tokenizer.ggml.model');
  if (model !== 'gpt2' && model !== 'llama') {
    throw new MoestroError(
      'UNSUPPORTED_TOKENIZER',
      `Cannot convert the tokenizer: tokenizer.ggml.model is ${JSON.stringify(model ?? null)}, supported are "gpt2" and "llama"`,
    );
  }
  const vocabulary = readVocabulary(metadata);
  const pre = model === 'gpt2' ? preTokenizer(metadata) : null;
  const generation = readGeneration(metadata, vocabulary, pre?.addBos ?? true);
  const parts = pre === null ? sentencePiece(metadata, vocabulary) : byteLevel(metadata, vocabulary, pre);
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary, pre === null),
    normalizer: parts.normalizer,
    pre_tokenizer: parts.preTokenizer,
    post_processor: postProcessor(vocabulary, generation),
    decoder: parts.decoder,
    model: parts.model,
  };
  return {
    tokenizerJson: JSON.stringify(tokenizer),
    tokenizerConfigJson: JSON.stringify(tokenizerConfig(metadata, vocabulary, generation)),
    generation,
    tokenCount: vocabulary.tokens.length,
  };
}

function readVocabulary(metadata: Metadata): Vocabulary {
  const tokens = metadata.get('tokenizer.ggml.tokens');
  if (!Array.isArray(tokens) || tokens.length === 0 || tokens.length > MAX_TOKENS || !tokens.every(isText)) {
    invalid(`tokenizer.ggml.tokens is not a list of 1 to ${MAX_TOKENS} strings`);
  }
  const types = metadata.get('tokenizer.ggml.token_type') ?? tokens.map(() => NORMAL);
  if (!Array.isArray(types) || types.length !== tokens.length || !types.every(Number.isInteger)) {
    invalid(`tokenizer.ggml.token_type is not a list of ${tokens.length} integers`);
  }
  const ids = new Map<string, number>();
  for (const [id, token] of tokens.entries()) {
    if (ids.has(token)) invalid(`tokens ${ids.get(token)} and ${id} are both ${JSON.stringify(token)}`);
    ids.set(token, id);
  }
  return { tokens, types: types as number[], ids };
}

function preTokenizer(metadata: Metadata): PreTokenizer {
  const name = metadata.get('tokenizer.ggml.pre') ?? 'default';
  const found = PRE_TOKENIZERS.find(({ names }) => names.includes(name as string));
  if (found !== undefined) return found;
  throw new MoestroError(
    'UNSUPPORTED_TOKENIZER',
    `Cannot convert the tokenizer: tokenizer.ggml.pre is ${JSON.stringify(name)}, supported are ${PRE_TOKENIZERS.flatMap(({ names }) => names).join(', ')}`,
  );
}

function readGeneration(metadata: Metadata, { tokens }: Vocabulary, addBosDefault: boolean): SourceGeneration {
  const id = (key: string): number | null => {
    const value = metadata.get(`tokenizer.ggml.${key}`);
    if (value === undefined) return null;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0)
      invalid(`tokenizer.ggml.${key} is not an id`);
    // Writers use ids past the end for "none".
    return value < tokens.length ? value : null;
  };
  const eosTokenIds = ['eos_token_id', 'eot_token_id', 'eom_token_id'].map(id).filter((one) => one !== null);
  const bosTokenId = id('bos_token_id');
  const addBos = metadata.get('tokenizer.ggml.add_bos_token') ?? addBosDefault;
  return { eosTokenIds: [...new Set(eosTokenIds)], bosTokenId, addBos: addBos === true && bosTokenId !== null };
}

interface TokenizerParts {
  readonly normalizer: unknown;
  readonly preTokenizer: unknown;
  readonly decoder: unknown;
  readonly model: unknown;
}

function byteLevel(metadata: Metadata, { tokens, types, ids }: Vocabulary, pre: PreTokenizer): TokenizerParts {
  const merges = metadata.get('tokenizer.ggml.merges');
  if (!Array.isArray(merges) || !merges.every(isText)) invalid('tokenizer.ggml.merges is not a list of strings');
  const pairs = merges.map((merge: string) => {
    // From 1, since a token may itself start with a space.
    const space = merge.indexOf(' ', 1);
    const [left, right] = [merge.slice(0, space), merge.slice(space + 1)];
    if (space < 0 || !ids.has(left) || !ids.has(right) || !ids.has(left + right)) {
      invalid(`merge ${JSON.stringify(merge.slice(0, 80))} is not of two tokens to a third`);
    }
    return [left, right];
  });
  const byteLevelPart = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false };
  const splits = pre.splits.map((regex) => ({
    type: 'Split',
    pattern: { Regex: regex },
    behavior: 'Isolated',
    invert: false,
  }));
  return {
    normalizer: pre.normalizer,
    preTokenizer: { type: 'Sequence', pretokenizers: [...splits, byteLevelPart] },
    decoder: byteLevelPart,
    model: {
      ...bpe(tokens, (id) => types[id] !== CONTROL && types[id] !== USER_DEFINED, pairs),
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges,
    },
  };
}

function sentencePiece(metadata: Metadata, vocabulary: Vocabulary): TokenizerParts {
  const { tokens, types } = vocabulary;
  const scores = metadata.get('tokenizer.ggml.scores');
  if (!Array.isArray(scores) || scores.length !== tokens.length || !scores.every(Number.isFinite)) {
    invalid(`tokenizer.ggml.scores is not a list of ${tokens.length} numbers`);
  }
  const addPrefix = metadata.get('tokenizer.ggml.add_space_prefix') !== false;
  const unknown = types.indexOf(UNKNOWN);
  const toSpace = { type: 'Replace', pattern: { String: '▁' }, content: ' ' };
  const fromSpace = { type: 'Replace', pattern: { String: ' ' }, content: '▁' };
  const strip = { type: 'Strip', content: ' ', start: 1, stop: 0 };
  return {
    normalizer: {
      type: 'Sequence',
      normalizers: addPrefix ? [{ type: 'Prepend', prepend: '▁' }, fromSpace] : [fromSpace],
    },
    preTokenizer: null,
    decoder: {
      type: 'Sequence',
      decoders: [toSpace, { type: 'ByteFallback' }, { type: 'Fuse' }, ...(addPrefix ? [strip] : [])],
    },
    model: {
      ...bpe(tokens, () => true, mergesFromScores(vocabulary, scores as number[])),
      unk_token: unknown < 0 ? null : tokens[unknown]!,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
    },
  };
}

/**
 * SentencePiece joins the neighbours whose joined piece scores highest. Listing every way to make every piece from two
 * others, best score first, gives ranked merges that choose the same way.
 */
function mergesFromScores({ tokens, types, ids }: Vocabulary, scores: readonly number[]): string[][] {
  const isPiece = (id: number | undefined): id is number => id !== undefined && types[id] === NORMAL;
  const merges: { left: string; right: string; score: number }[] = [];
  for (const [id, token] of tokens.entries()) {
    if (!isPiece(id)) continue;
    const characters = [...token];
    if (characters.length > MAX_PIECE_CHARACTERS)
      invalid(`token ${id} has more than ${MAX_PIECE_CHARACTERS} characters`);
    let cut = 0;
    for (const character of characters.slice(0, -1)) {
      cut += character.length;
      const [left, right] = [token.slice(0, cut), token.slice(cut)];
      if (isPiece(ids.get(left)) && isPiece(ids.get(right))) merges.push({ left, right, score: scores[id]! });
    }
  }
  // The sort is stable, so pieces of one score keep the order of their ids.
  merges.sort((a, b) => b.score - a.score);
  return merges.map(({ left, right }) => [left, right]);
}

function bpe(tokens: readonly string[], isInModel: (id: number) => boolean, merges: readonly (readonly string[])[]) {
  // A null prototype, so that a token called "__proto__" is a token.
  const vocab: Record<string, number> = Object.create(null);
  for (const [id, token] of tokens.entries()) if (isInModel(id)) vocab[token] = id;
  return {
    type: 'BPE',
    dropout: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    vocab,
    merges,
  };
}

/** Control tokens are special; user-defined ones are found in any text but shown like the rest. */
function addedTokens({ tokens, types }: Vocabulary, isSentencePiece: boolean): unknown[] {
  return tokens.flatMap((content, id) => {
    const type = types[id];
    const isSpecial = type === CONTROL || (isSentencePiece && type === UNKNOWN);
    if (!isSpecial && type !== USER_DEFINED) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: isSpecial }];
  });
}

function postProcessor({ tokens }: Vocabulary, { addBos, bosTokenId }: SourceGeneration): unknown {
  if (!addBos || bosTokenId === null) return null;
  const bos = tokens[bosTokenId]!;
  const begin = { SpecialToken: { id: bos, type_id: 0 } };
  const first = { Sequence: { id: 'A', type_id: 0 } };
  return {
    type: 'TemplateProcessing',
    single: [begin, first],
    pair: [begin, first, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: { [bos]: { id: bos, ids: [bosTokenId], tokens: [bos] } },
  };
}

function tokenizerConfig(metadata: Metadata, vocabulary: Vocabulary, generation: SourceGeneration): unknown {
  const { tokens } = vocabulary;
  const named = (id: unknown): string | null => (typeof id === 'number' ? (tokens[id] ?? null) : null);
  const template = metadata.get('tokenizer.chat_template');
  const added = addedTokens(vocabulary, metadata.get('tokenizer.ggml.model') === 'llama') as { id: number }[];
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    add_bos_token: generation.addBos,
    add_eos_token: metadata.get('tokenizer.ggml.add_eos_token') === true,
    bos_token: named(generation.bosTokenId),
    eos_token: named(generation.eosTokenIds[0]),
    pad_token: named(metadata.get('tokenizer.ggml.padding_token_id')),
    unk_token: named(metadata.get('tokenizer.ggml.unknown_token_id')),
    clean_up_tokenization_spaces: false,
    added_tokens_decoder: Object.fromEntries(added.map(({ id, ...token }) => [String(id), token])),
    ...(typeof template === 'string' ? { chat_template: template } : {}),
  };
}

const isText = (value: unknown): value is string => typeof value === 'string';

function invalid(found: string): never {
  throw new MoestroError('SOURCE_INVALID', `Cannot convert the tokenizer: ${found}`);
}
