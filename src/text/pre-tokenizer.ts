/**
 * How is normalized text cut into the pieces that merges never cross? The `pre_tokenizer` of tokenizer.json.
 */
import { readPattern } from './normalizer.js';
import { compilePattern, literalPattern } from './pattern.js';
import { asArray, asFlag, asObject, asString, type JsonObject, unsupported } from './tokenizer-json.js';

/** @param isFirst whether the text stands at the very beginning of what is encoded. */
type Cutter = (pieces: readonly string[], isFirst: boolean) => readonly string[];

export interface PreTokenizer {
  readonly cut: Cutter;
  /** Pieces go on as their UTF-8 bytes, one symbol each, instead of as characters. */
  readonly isByteLevel: boolean;
}

const SUPPORTED = ['Split', 'ByteLevel', 'Metaspace', 'Digits', 'Punctuation', 'Sequence'];
const BEHAVIORS = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'] as const;
type Behavior = (typeof BEHAVIORS)[number];

/** GPT-2's own pieces: contractions, then letters, numbers or other signs with one space before, then white space. */
const GPT2_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/**
 * @param value the `pre_tokenizer` of tokenizer.json; null for one piece.
 * @throws {MoestroError} UNSUPPORTED_TOKENIZER, MODEL_INVALID
 */
export function createPreTokenizer(value: unknown, place = 'tokenizer.json pre_tokenizer'): PreTokenizer {
  if (value === null || value === undefined) return { cut: (pieces) => pieces, isByteLevel: false };
  const config = asObject(value, place);
  const type = asString(config.type, `${place}.type`);
  switch (type) {
    case 'Split': {
      const pattern = readPattern(config.pattern, `${place}.pattern`);
      const isInverted = asFlag(config.invert, `${place}.invert`);
      return { cut: eachPiece(splitter(pattern, readBehavior(config, place, null), isInverted)), isByteLevel: false };
    }
    case 'ByteLevel':
      return byteLevel(config, place);
    case 'Metaspace':
      return { cut: metaspace(config, place), isByteLevel: false };
    case 'Digits': {
      const isEach = asFlag(config.individual_digits, `${place}.individual_digits`);
      const pattern = compilePattern('\\p{N}', place);
      return { cut: eachPiece(splitter(pattern, isEach ? 'Isolated' : 'Contiguous', false)), isByteLevel: false };
    }
    case 'Punctuation': {
      const pattern = compilePattern('[\\p{P}!-\\/:-@\\[-`{-~]', place);
      return { cut: eachPiece(splitter(pattern, readBehavior(config, place, 'Isolated'), false)), isByteLevel: false };
    }
    case 'Sequence':
      return sequence(config, place);
    default:
      throw unsupported(place, type, SUPPORTED);
  }
}

function readBehavior(config: JsonObject, place: string, absent: Behavior | null): Behavior {
  if (config.behavior === undefined && absent !== null) return absent;
  const name = asString(config.behavior, `${place}.behavior`);
  const behavior = BEHAVIORS.find((known) => known === name);
  if (behavior === undefined) throw unsupported(`${place}.behavior`, name, BEHAVIORS);
  return behavior;
}

const eachPiece =
  (split: (piece: string, out: string[]) => void): Cutter =>
  (pieces) => {
    const out: string[] = [];
    for (const piece of pieces) split(piece, out);
    return out;
  };

function sequence(config: JsonObject, place: string): PreTokenizer {
  const parts = asArray(config.pretokenizers, `${place}.pretokenizers`);
  const steps = parts.map((part, i) => createPreTokenizer(part, `${place}.pretokenizers[${i}]`));
  const early = steps.findIndex((step) => step.isByteLevel);
  if (early >= 0 && early < steps.length - 1)
    throw unsupported(`${place}.pretokenizers[${early}]`, 'ByteLevel before another step', [
      'ByteLevel as the last step',
    ]);
  return {
    cut: (pieces, isFirst) => steps.reduce((current, step) => step.cut(current, isFirst), pieces),
    isByteLevel: early >= 0,
  };
}

function byteLevel(config: JsonObject, place: string): PreTokenizer {
  const hasPrefix = asFlag(config.add_prefix_space, `${place}.add_prefix_space`);
  const pattern = asFlag(config.use_regex, `${place}.use_regex`, true) ? compilePattern(GPT2_PATTERN, place) : null;
  const split = pattern === null ? null : splitter(pattern, 'Isolated', false);
  return {
    cut: eachPiece((piece, out) => {
      const text = hasPrefix && !piece.startsWith(' ') ? ` ${piece}` : piece;
      if (split === null) out.push(text);
      else split(text, out);
    }),
    isByteLevel: true,
  };
}

function metaspace(config: JsonObject, place: string): Cutter {
  const mark = config.replacement === undefined ? '▁' : asString(config.replacement, `${place}.replacement`);
  const scheme =
    config.prepend_scheme === undefined
      ? asFlag(config.add_prefix_space, `${place}.add_prefix_space`, true)
        ? 'always'
        : 'never'
      : asString(config.prepend_scheme, `${place}.prepend_scheme`);
  if (!['always', 'first', 'never'].includes(scheme))
    throw unsupported(`${place}.prepend_scheme`, scheme, ['always', 'first', 'never']);
  const isSplit = asFlag(config.split, `${place}.split`, true);
  const split = splitter(literalPattern(mark), 'MergedWithNext', false);
  return (pieces, isFirst) => {
    const out: string[] = [];
    pieces.forEach((piece, i) => {
      const marked = piece.replaceAll(' ', mark);
      const isPrefixed =
        (scheme === 'always' || (scheme === 'first' && isFirst && i === 0)) && !marked.startsWith(mark);
      const text = isPrefixed ? mark + marked : marked;
      if (isSplit) split(text, out);
      else out.push(text);
    });
    return out;
  };
}

/** Cuts one piece at the matches of a pattern; what becomes of the matches is the behavior's. */
function splitter(pattern: RegExp, behavior: Behavior, isInverted: boolean): (piece: string, out: string[]) => void {
  if (behavior === 'Isolated') return (piece, out) => isolate(piece, pattern, out);
  return (piece, out) => {
    const parts = partition(piece, pattern, isInverted);
    let pending = '';
    let wasMatch = false;
    for (const part of parts) {
      const isJoined =
        behavior === 'Contiguous'
          ? part.isMatch === wasMatch
          : behavior === 'MergedWithPrevious'
            ? part.isMatch && !wasMatch
            : behavior === 'MergedWithNext' && wasMatch && !part.isMatch;
      if (!isJoined) {
        if (pending !== '') out.push(pending);
        pending = '';
      }
      pending += behavior === 'Removed' && part.isMatch ? '' : part.text;
      wasMatch = part.isMatch;
    }
    if (pending !== '') out.push(pending);
  };
}

/** The common case without objects: every match and everything between two matches is a piece. */
function isolate(piece: string, pattern: RegExp, out: string[]): void {
  let end = 0;
  pattern.lastIndex = 0;
  for (let match = pattern.exec(piece); match !== null; match = pattern.exec(piece)) {
    const text = match[0];
    if (text === '') {
      pattern.lastIndex += 1;
      continue;
    }
    if (match.index > end) out.push(piece.slice(end, match.index));
    out.push(text);
    end = match.index + text.length;
  }
  if (end < piece.length) out.push(piece.slice(end));
}

interface Part {
  readonly text: string;
  readonly isMatch: boolean;
}

function partition(piece: string, pattern: RegExp, isInverted: boolean): Part[] {
  const parts: Part[] = [];
  let end = 0;
  for (const match of piece.matchAll(pattern)) {
    if (match[0] === '') continue;
    if (match.index > end) parts.push({ text: piece.slice(end, match.index), isMatch: isInverted });
    parts.push({ text: match[0], isMatch: !isInverted });
    end = match.index + match[0].length;
  }
  if (end < piece.length) parts.push({ text: piece.slice(end), isMatch: isInverted });
  return parts;
}
