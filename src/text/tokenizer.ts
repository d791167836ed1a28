/**
 * Text to token ids, as tokenizer.json describes it: added tokens are found, what lies between them is normalized,
 * cut into pieces, and the symbols of each piece merged.
 *
 * ```
 * "<|im_start|>user\nHi"  ->  [<|im_start|>] "user\nHi"  ->  "user" "\n" "Hi"  ->  ids
 * ```
 *
 * Source of the format: the tokenizers library of Hugging Face, whose results the golden files of
 * test/golden/tokenizer hold.
 */
import { type AddedToken, AddedTokenFinder, type Admit, readAddedTokens } from './added-tokens.js';
import { Merger, MergeTable } from './bpe.js';
import { BYTE_TO_CHAR } from './byte-chars.js';
import { createNormalizer, type Normalizer } from './normalizer.js';
import { createPreTokenizer, type PreTokenizer } from './pre-tokenizer.js';
import {
  asArray,
  asFlag,
  asObject,
  asString,
  asTokenId,
  invalid,
  type JsonObject,
  unsupported,
} from './tokenizer-json.js';
import { fallbackByte, Vocabulary } from './vocabulary.js';

/** Says whether [start, end) of the text may become a special token. */
export type Guard = (start: number, end: number) => boolean;

/** Pieces whose ids are remembered, and the longest of them: words repeat, and 16 k of them take about 3 MB. */
const CACHE_PIECES = 16384;
const CACHE_PIECE_LENGTH = 48;

const SPACE_MARK = '▁';

export class Tokenizer {
  readonly vocabulary: Vocabulary;
  readonly addedTokens: readonly AddedToken[];
  private readonly normalize: Normalizer;
  private readonly preTokenizer: PreTokenizer;
  private readonly rawFinder: AddedTokenFinder;
  private readonly normalizedFinder: AddedTokenFinder;
  /**
   * For texts with a guard, which knows places in the text as it came: special tokens that are looked for in
   * normalized text otherwise are looked for here too.
   */
  private readonly guardedFinder: AddedTokenFinder;
  private readonly merger: Merger;
  /** Ids of entries that a piece may be as a whole without merging; null when pieces are always merged. */
  private readonly wholes: ReadonlyMap<string, number> | null;
  /** Ids of single characters, where pieces are characters. */
  private readonly charIds: ReadonlyMap<string, number>;
  /** Ids of single bytes [256], -1 where there is none: of all symbols, or of the fallback for unknown characters. */
  private readonly byteIds: Int32Array;
  private readonly hasByteFallback: boolean;
  private readonly unknownId: number | null;
  private readonly isUnknownFused: boolean;
  /** Pieces may be cut before a "▁" without changing a single id, because no merge reaches across. */
  private readonly isCutAtMarks: boolean;
  private readonly cache = new Map<string, Int32Array>();
  private readonly encoder = new TextEncoder();
  private byteScratch = new Uint8Array(4096);
  private symbolScratch = new Int32Array(4096);

  /**
   * @param json parsed tokenizer.json.
   * @param addedTokensDecoder of tokenizer_config.json, for tokens that tokenizer.json does not list.
   * @throws {MoestroError} UNSUPPORTED_TOKENIZER, MODEL_INVALID
   */
  constructor(json: unknown, addedTokensDecoder?: unknown) {
    const file = asObject(json, 'tokenizer.json');
    const model = readModel(file);
    this.addedTokens = readAddedTokens(file.added_tokens, addedTokensDecoder);
    this.normalize = createNormalizer(file.normalizer);
    this.preTokenizer = createPreTokenizer(file.pre_tokenizer);
    const ids = readVocabulary(model.vocab);
    this.vocabulary = new Vocabulary(ids, this.addedTokens, file.decoder);
    const rawTokens = this.addedTokens.filter((token) => !token.isNormalized);
    this.rawFinder = new AddedTokenFinder(rawTokens.map((token) => [token.content, token]));
    this.guardedFinder = new AddedTokenFinder(
      this.addedTokens.filter((token) => token.isSpecial || !token.isNormalized).map((token) => [token.content, token]),
    );
    this.normalizedFinder = new AddedTokenFinder(
      this.addedTokens
        .filter((token) => token.isNormalized)
        .map((token) => [this.normalize(token.content), token] as const)
        .filter(([content]) => content !== ''),
    );
    const merges = readMerges(model.merges, ids);
    this.merger = new Merger(merges.table);
    this.wholes = asFlag(model.ignore_merges, 'tokenizer.json model.ignore_merges') ? ids : null;
    this.hasByteFallback = asFlag(model.byte_fallback, 'tokenizer.json model.byte_fallback');
    this.isUnknownFused = asFlag(model.fuse_unk, 'tokenizer.json model.fuse_unk');
    this.unknownId = readUnknownId(model.unk_token, ids);
    this.byteIds = new Int32Array(256).fill(-1);
    const charIds = new Map<string, number>();
    if (this.preTokenizer.isByteLevel) {
      BYTE_TO_CHAR.forEach((char, byte) => {
        this.byteIds[byte] = ids.get(char) ?? -1;
      });
    } else {
      for (const [entry, id] of ids) {
        const byte = fallbackByte(entry);
        if (byte !== null) this.byteIds[byte] = id;
        if (entry.length <= 2 && entry !== '' && String.fromCodePoint(entry.codePointAt(0)!) === entry)
          charIds.set(entry, id);
      }
    }
    this.charIds = charIds;
    this.isCutAtMarks =
      !this.preTokenizer.isByteLevel && this.wholes === null && charIds.has(SPACE_MARK) && !merges.crossesMark;
  }

  /**
   * @param text anything; a lone surrogate counts as U+FFFD.
   * @param special whether special tokens written in the text become their ids. Added tokens that are not special
   * (runs of spaces, <think>) always do.
   * @param guard narrows `special` to places where it says true.
   */
  encode(text: string, special = true, guard?: Guard): number[] {
    const wellFormed = text.replace(/\p{Surrogate}/gu, '\uFFFD');
    const ids: number[] = [];
    const admitRaw: Admit = (token, start, end) =>
      !token.isSpecial || (special && (guard === undefined || guard(start, end)));
    const finder = guard === undefined ? this.rawFinder : this.guardedFinder;
    let end = 0;
    for (const match of finder.find(wellFormed, admitRaw)) {
      this.encodeSegment(wellFormed.slice(end, match.start), end === 0, special && guard === undefined, ids);
      ids.push(match.token.id);
      end = match.end;
    }
    this.encodeSegment(end === 0 ? wellFormed : wellFormed.slice(end), end === 0, special && guard === undefined, ids);
    return ids;
  }

  private encodeSegment(segment: string, isFirst: boolean, special: boolean, ids: number[]): void {
    if (segment === '') return;
    const text = this.normalize(segment);
    const admit: Admit = (token) => special || !token.isSpecial;
    let end = 0;
    for (const match of this.normalizedFinder.find(text, admit)) {
      this.encodeNormalized(text.slice(end, match.start), isFirst && end === 0, ids);
      ids.push(match.token.id);
      end = match.end;
    }
    this.encodeNormalized(end === 0 ? text : text.slice(end), isFirst && end === 0, ids);
  }

  private encodeNormalized(text: string, isFirst: boolean, ids: number[]): void {
    if (text === '') return;
    for (const piece of this.preTokenizer.cut([text], isFirst)) {
      if (!this.isCutAtMarks) this.encodePiece(piece, ids);
      else for (const part of piece.match(/▁*[^▁]+|▁+/gu) ?? []) this.encodePiece(part, ids);
    }
  }

  private encodePiece(piece: string, ids: number[]): void {
    const known = this.cache.get(piece);
    if (known !== undefined) {
      for (const id of known) ids.push(id);
      return;
    }
    const whole = this.wholes?.get(this.preTokenizer.isByteLevel ? this.byteChars(piece) : piece);
    let count = 1;
    if (whole !== undefined) this.symbolScratch[0] = whole;
    else {
      // Two statements: filling may replace the scratch array.
      const symbols = this.fillSymbols(piece);
      count = this.merger.merge(this.symbolScratch, symbols);
    }
    for (let i = 0; i < count; ++i) ids.push(this.symbolScratch[i]!);
    if (piece.length <= CACHE_PIECE_LENGTH) {
      // Starting over is cheaper than keeping the order of use, and a text refills what it needs within a page.
      if (this.cache.size >= CACHE_PIECES) this.cache.clear();
      this.cache.set(piece, this.symbolScratch.slice(0, count));
    }
    if (this.symbolScratch.length > 65536) this.symbolScratch = new Int32Array(4096);
    if (this.byteScratch.length > 65536) this.byteScratch = new Uint8Array(4096);
  }

  private byteChars(piece: string): string {
    let text = '';
    for (const byte of this.encoder.encode(piece)) text += BYTE_TO_CHAR[byte];
    return text;
  }

  /** Writes the symbols of a piece before any merge; returns how many. */
  private fillSymbols(piece: string): number {
    // UTF-8 takes at most 3 bytes a UTF-16 unit, and no symbol less than a byte.
    if (this.byteScratch.length < piece.length * 3) this.byteScratch = new Uint8Array(piece.length * 3);
    if (this.symbolScratch.length < piece.length * 3) this.symbolScratch = new Int32Array(piece.length * 3);
    return this.preTokenizer.isByteLevel ? this.fillBytes(piece) : this.fillChars(piece);
  }

  private fillBytes(piece: string): number {
    const { written } = this.encoder.encodeInto(piece, this.byteScratch);
    let count = 0;
    let wasUnknown = false;
    for (let i = 0; i < written; ++i) {
      const id = this.byteIds[this.byteScratch[i]!]!;
      if (id >= 0) this.symbolScratch[count++] = id;
      else if (this.unknownId !== null && !(wasUnknown && this.isUnknownFused))
        this.symbolScratch[count++] = this.unknownId;
      wasUnknown = id < 0;
    }
    return count;
  }

  private fillChars(piece: string): number {
    const symbols = this.symbolScratch;
    let count = 0;
    let wasUnknown = false;
    for (const char of piece) {
      const id = this.charIds.get(char);
      if (id !== undefined) {
        symbols[count++] = id;
        wasUnknown = false;
        continue;
      }
      const bytes = this.hasByteFallback ? this.fallbackIds(char) : null;
      if (bytes !== null) {
        for (const byteId of bytes) symbols[count++] = byteId;
        wasUnknown = false;
      } else {
        if (this.unknownId !== null && !(wasUnknown && this.isUnknownFused)) symbols[count++] = this.unknownId;
        wasUnknown = true;
      }
    }
    return count;
  }

  /** Null unless every byte of the character has a token. */
  private fallbackIds(char: string): number[] | null {
    const ids: number[] = [];
    for (const byte of this.encoder.encode(char)) {
      const id = this.byteIds[byte]!;
      if (id < 0) return null;
      ids.push(id);
    }
    return ids;
  }
}

function readModel(file: JsonObject): JsonObject {
  const model = asObject(file.model, 'tokenizer.json model');
  // The oldest files name no type; a list of merges tells what they are.
  const type = model.type ?? (model.merges === undefined ? undefined : 'BPE');
  if (asString(type, 'tokenizer.json model.type') !== 'BPE')
    throw unsupported('tokenizer.json model.type', String(type), ['BPE']);
  for (const name of ['continuing_subword_prefix', 'end_of_word_suffix']) {
    const value = model[name] ?? '';
    if (value !== '') throw unsupported(`tokenizer.json model.${name}`, String(value), ['the empty string']);
  }
  if (Number(model.dropout ?? 0) !== 0) throw unsupported('tokenizer.json model.dropout', String(model.dropout), ['0']);
  return model;
}

function readVocabulary(value: unknown): ReadonlyMap<string, number> {
  const ids = new Map<string, number>();
  const vocabulary = asObject(value, 'tokenizer.json model.vocab');
  for (const [entry, id] of Object.entries(vocabulary))
    ids.set(entry, asTokenId(id, `tokenizer.json model.vocab[${JSON.stringify(entry.slice(0, 40))}]`));
  if (ids.size === 0) throw invalid('tokenizer.json model.vocab', value, 'at least one entry');
  return ids;
}

function readUnknownId(value: unknown, ids: ReadonlyMap<string, number>): number | null {
  if (value === undefined || value === null) return null;
  const id = ids.get(asString(value, 'tokenizer.json model.unk_token'));
  if (id === undefined) throw invalid('tokenizer.json model.unk_token', value, 'an entry of model.vocab');
  return id;
}

/** Merges come as ["a", "b"] or, in older files, as "a b". */
function readMerges(
  value: unknown,
  ids: ReadonlyMap<string, number>,
): { readonly table: MergeTable; readonly crossesMark: boolean } {
  const merges = asArray(value, 'tokenizer.json model.merges');
  const table = new MergeTable(merges.length);
  let crossesMark = false;
  merges.forEach((merge, rank) => {
    const pair = typeof merge === 'string' ? merge.split(' ') : merge;
    const [left, right] = Array.isArray(pair) && pair.length === 2 ? (pair as unknown[]) : [];
    if (typeof left !== 'string' || typeof right !== 'string')
      throw invalid(`tokenizer.json model.merges[${rank}]`, merge, 'two entries of model.vocab');
    const leftId = ids.get(left);
    const rightId = ids.get(right);
    const mergedId = ids.get(left + right);
    if (leftId === undefined || rightId === undefined || mergedId === undefined) {
      const missing = leftId === undefined ? left : rightId === undefined ? right : left + right;
      throw invalid(`tokenizer.json model.merges[${rank}]`, missing, 'entries of model.vocab, merged as well');
    }
    table.set(leftId, rightId, rank, mergedId);
    crossesMark ||= !left.endsWith(SPACE_MARK) && right.startsWith(SPACE_MARK);
  });
  return { table, crossesMark };
}
