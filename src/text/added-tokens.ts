/**
 * Where do added tokens stand in a text? Found before anything else is done to it: leftmost first, the longest of
 * those that begin at one place.
 */
import { asArray, asFlag, asObject, asString, asTokenId, invalid } from './tokenizer-json.js';

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Special tokens steer the model (turns, ends); the others are only words that stay whole. */
  readonly isSpecial: boolean;
  /** Looked for in normalized text instead of the text as it came. */
  readonly isNormalized: boolean;
  readonly isSingleWord: boolean;
  /** Takes the white space before or after it along. */
  readonly stripsLeft: boolean;
  readonly stripsRight: boolean;
}

export function readAddedToken(value: unknown, id: unknown, place: string): AddedToken {
  const config = asObject(value, place);
  const content = asString(config.content, `${place}.content`);
  if (content === '') throw invalid(`${place}.content`, content, 'a text of at least one character');
  const isSpecial = asFlag(config.special, `${place}.special`);
  return {
    id: asTokenId(id, `${place}.id`),
    content,
    isSpecial,
    isNormalized: asFlag(config.normalized, `${place}.normalized`, !isSpecial),
    isSingleWord: asFlag(config.single_word, `${place}.single_word`),
    stripsLeft: asFlag(config.lstrip, `${place}.lstrip`),
    stripsRight: asFlag(config.rstrip, `${place}.rstrip`),
  };
}

/** tokenizer.json's list, then what only tokenizer_config.json's `added_tokens_decoder` knows. */
export function readAddedTokens(listed: unknown, decoder: unknown): AddedToken[] {
  const tokens = asArray(listed ?? [], 'tokenizer.json added_tokens').map((value, i) => {
    const place = `tokenizer.json added_tokens[${i}]`;
    return readAddedToken(value, asObject(value, place).id, place);
  });
  const known = new Set(tokens.map((token) => token.content));
  for (const [id, value] of Object.entries(asObject(decoder ?? {}, 'tokenizer_config.json added_tokens_decoder'))) {
    const token = readAddedToken(value, Number(id), `tokenizer_config.json added_tokens_decoder["${id}"]`);
    if (!known.has(token.content)) tokens.push(token);
    known.add(token.content);
  }
  return tokens;
}

export interface AddedTokenMatch {
  readonly token: AddedToken;
  readonly start: number;
  readonly end: number;
}

/** Whether this token may be taken at [start, end) of the text. */
export type Admit = (token: AddedToken, start: number, end: number) => boolean;

interface TrieNode {
  readonly next: Map<number, TrieNode>;
  token: AddedToken | null;
}

const WORD = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]/u;
const WORD_AT_END = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]$/u;
const WHITE_SPACE = /\p{White_Space}/u;

export class AddedTokenFinder {
  private readonly root: TrieNode = { next: new Map(), token: null };
  /** 1 for UTF-16 units that begin a token: skips most of a text without a look at the trie. */
  private readonly begins = new Uint8Array(65536);

  /** @param contents what each token looks like in the text to be searched. */
  constructor(contents: readonly (readonly [string, AddedToken])[]) {
    for (const [content, token] of contents) {
      let node = this.root;
      this.begins[content.charCodeAt(0)] = 1;
      for (let i = 0; i < content.length; ++i) {
        const unit = content.charCodeAt(i);
        let child = node.next.get(unit);
        if (child === undefined) {
          child = { next: new Map(), token: null };
          node.next.set(unit, child);
        }
        node = child;
      }
      node.token ??= token;
    }
  }

  /** Matches in order, not overlapping, white space that they take along included. */
  find(text: string, admit: Admit): AddedTokenMatch[] {
    const matches: AddedTokenMatch[] = [];
    let floor = 0;
    for (let at = 0; at < text.length; ++at) {
      if (this.begins[text.charCodeAt(at)] === 0) continue;
      const token = this.longestAt(text, at, admit);
      if (token === null) continue;
      const last = at + token.end;
      if (!token.token.isSingleWord || isAlone(text, at, last)) {
        let start = Math.max(at, floor);
        let end = last;
        if (token.token.stripsLeft) while (start > floor && WHITE_SPACE.test(text[start - 1]!)) --start;
        if (token.token.stripsRight) while (end < text.length && WHITE_SPACE.test(text[end]!)) ++end;
        if (end > floor) matches.push({ token: token.token, start, end });
        floor = Math.max(floor, end);
      }
      at = last - 1;
    }
    return matches;
  }

  private longestAt(text: string, at: number, admit: Admit): { token: AddedToken; end: number } | null {
    let node = this.root;
    let best: { token: AddedToken; end: number } | null = null;
    for (let i = at; i < text.length; ++i) {
      const child = node.next.get(text.charCodeAt(i));
      if (child === undefined) break;
      node = child;
      if (node.token !== null && admit(node.token, at, i + 1)) best = { token: node.token, end: i + 1 - at };
    }
    return best;
  }
}

function isAlone(text: string, start: number, end: number): boolean {
  const before = WORD_AT_END.test(text.slice(Math.max(0, start - 2), start));
  const after = end < text.length && WORD.test(String.fromCodePoint(text.codePointAt(end)!));
  return !before && !after;
}
