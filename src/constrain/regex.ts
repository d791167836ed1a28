/** A subset of ECMAScript's regular expressions, in Unicode mode, to a tree: what a finite automaton can do. */
import { ALL, type CodePoints, codePoints, complement, union } from './code-points.js';
import { NESTING_MAX, PATTERN_LENGTH_MAX } from './limits.js';
import { refuseFormat } from './refuse.js';

export type Regex =
  | { readonly kind: 'chars'; readonly set: CodePoints }
  | { readonly kind: 'sequence'; readonly parts: readonly Regex[] }
  | { readonly kind: 'choice'; readonly options: readonly Regex[] }
  | { readonly kind: 'repeat'; readonly body: Regex; readonly min: number; readonly max: number }
  | { readonly kind: 'start' }
  | { readonly kind: 'end' };

const LINE_ENDS: CodePoints = codePoints([
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
]);
const DIGITS: CodePoints = [[0x30, 0x39]];
const WORD: CodePoints = codePoints([
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
]);
const SPACE: CodePoints = codePoints([
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
]);
const CLASSES: Readonly<Record<string, CodePoints>> = {
  d: DIGITS,
  D: complement(DIGITS),
  w: WORD,
  W: complement(WORD),
  s: SPACE,
  S: complement(SPACE),
};
const CONTROLS: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13, 0: 0 };
const ANY: Regex = { kind: 'repeat', body: { kind: 'chars', set: ALL }, min: 0, max: Number.POSITIVE_INFINITY };

const single = (point: number): CodePoints => codePoints([[point, point]]);
const textOf = (text: string): Regex => ({
  kind: 'sequence',
  parts: [...text].map((char) => ({ kind: 'chars', set: single(char.codePointAt(0)!) })),
});

/** One of these texts. */
export const texts = (options: readonly string[]): Regex => ({ kind: 'choice', options: options.map(textOf) });

/**
 * @param place of the pattern, for errors.
 * @param isWhole whether the pattern is the whole text; else it may stand anywhere in it, as in JSON Schema.
 * @throws {MoestroError} UNSUPPORTED_FORMAT for what is malformed and for look-around, references and word boundaries.
 */
export function parseRegex(pattern: string, place: string, isWhole: boolean): Regex {
  if (pattern.length > PATTERN_LENGTH_MAX) {
    throw refuseFormat(place, `a pattern of ${pattern.length} characters`, `at most ${PATTERN_LENGTH_MAX}`);
  }
  return anchored(new Parser(pattern, place).parse(), place, isWhole);
}

/** Takes the anchors out: what they leave open may be any text. */
function anchored(regex: Regex, place: string, isWhole: boolean): Regex {
  if (regex.kind === 'choice') {
    return { kind: 'choice', options: regex.options.map((option) => anchored(option, place, isWhole)) };
  }
  const parts = regex.kind === 'sequence' ? [...regex.parts] : [regex];
  if (parts.length === 1 && parts[0]!.kind === 'choice') return anchored(parts[0]!, place, isWhole);
  let hasStart = isWhole;
  let hasEnd = isWhole;
  for (; parts[0]?.kind === 'start'; parts.shift()) hasStart = true;
  for (; parts.at(-1)?.kind === 'end'; parts.pop()) hasEnd = true;
  if (parts.length === 1 && parts[0]!.kind === 'choice' && hasAnchor(parts[0]!)) {
    throw refuseFormat(place, 'anchors within a group', '^ and $ at the two ends only');
  }
  if (parts.some(hasAnchor)) throw refuseFormat(place, 'an anchor in the middle', '^ and $ at the two ends only');
  return { kind: 'sequence', parts: [...(hasStart ? [] : [ANY]), ...parts, ...(hasEnd ? [] : [ANY])] };
}

function hasAnchor(regex: Regex): boolean {
  switch (regex.kind) {
    case 'start':
    case 'end':
      return true;
    case 'chars':
      return false;
    case 'sequence':
      return regex.parts.some(hasAnchor);
    case 'choice':
      return regex.options.some(hasAnchor);
    case 'repeat':
      return hasAnchor(regex.body);
    default:
      return regex satisfies never;
  }
}

class Parser {
  readonly #chars: readonly string[];
  readonly #place: string;
  #at = 0;
  #depth = 0;

  constructor(pattern: string, place: string) {
    this.#chars = [...pattern];
    this.#place = place;
  }

  parse(): Regex {
    const regex = this.#choice();
    if (this.#at < this.#chars.length) throw this.#refuse('")" without "("', 'balanced groups');
    return regex;
  }

  get #next(): string | undefined {
    return this.#chars[this.#at];
  }

  #take(char: string): boolean {
    if (this.#next !== char) return false;
    this.#at++;
    return true;
  }

  #startsWith(text: string): boolean {
    return this.#chars.slice(this.#at, this.#at + text.length).join('') === text;
  }

  #refuse(found: string, needed: string): Error {
    return refuseFormat(`${this.#place}, character ${this.#at + 1} of the pattern`, found, needed);
  }

  #choice(): Regex {
    if (++this.#depth > NESTING_MAX) throw this.#refuse(`groups nested deeper than ${NESTING_MAX}`, 'fewer');
    const options = [this.#sequence()];
    while (this.#take('|')) options.push(this.#sequence());
    this.#depth--;
    return options.length === 1 ? options[0]! : { kind: 'choice', options };
  }

  #sequence(): Regex {
    const parts: Regex[] = [];
    while (this.#next !== undefined && this.#next !== '|' && this.#next !== ')') {
      const atom = this.#atom();
      const isAnchor = atom.kind === 'start' || atom.kind === 'end';
      parts.push(isAnchor ? atom : this.#quantified(atom));
    }
    return parts.length === 1 ? parts[0]! : { kind: 'sequence', parts };
  }

  #quantified(atom: Regex): Regex {
    let bounds: readonly [number, number] | null = null;
    if (this.#take('*')) bounds = [0, Number.POSITIVE_INFINITY];
    else if (this.#take('+')) bounds = [1, Number.POSITIVE_INFINITY];
    else if (this.#take('?')) bounds = [0, 1];
    else if (this.#next === '{') bounds = this.#bounds();
    if (bounds === null) return atom;
    // Lazy or not, the same texts match.
    this.#take('?');
    if (['*', '+', '?'].includes(this.#next ?? '')) throw this.#refuse('a quantifier after a quantifier', 'one');
    return { kind: 'repeat', body: atom, min: bounds[0], max: bounds[1] };
  }

  #bounds(): readonly [number, number] {
    const match = /^\{(\d{1,9})(,(\d{0,9}))?\}/.exec(this.#chars.slice(this.#at, this.#at + 24).join(''));
    if (match === null) throw this.#refuse('"{" that begins no bounds', '"{2}", "{2,}" or "{2,5}", or "\\{"');
    this.#at += match[0].length;
    const min = Number(match[1]);
    const max = match[2] === undefined ? min : match[3] === '' ? Number.POSITIVE_INFINITY : Number(match[3]);
    if (max < min) throw this.#refuse(`bounds from ${min} to ${max}`, 'the lower one first');
    return [min, max];
  }

  #atom(): Regex {
    const char = this.#next!;
    if (char === '(') return this.#group();
    if (char === '[') return { kind: 'chars', set: this.#class() };
    if (char === '\\') {
      this.#at++;
      return { kind: 'chars', set: this.#escape(false) };
    }
    this.#at++;
    if (char === '^') return { kind: 'start' };
    if (char === '$') return { kind: 'end' };
    if (char === '.') return { kind: 'chars', set: complement(LINE_ENDS) };
    if ('*+?{'.includes(char)) {
      this.#at--;
      throw this.#refuse(`"${char}" after nothing`, 'something to repeat, or a backslash before it');
    }
    return { kind: 'chars', set: single(char.codePointAt(0)!) };
  }

  #group(): Regex {
    for (const look of ['(?=', '(?!', '(?<=', '(?<!']) {
      if (this.#startsWith(look)) throw this.#refuse(`look-around "${look}"`, 'a pattern without it');
    }
    const name = /^\(\?<[A-Za-z_$][\w$]*>/.exec(this.#chars.slice(this.#at, this.#at + 80).join(''));
    if (name !== null) this.#at += name[0].length;
    else if (this.#startsWith('(?:')) this.#at += 3;
    else if (this.#startsWith('(?')) throw this.#refuse('a group of an unknown kind', '"(" or "(?:"');
    else this.#at++;
    const inner = this.#choice();
    if (!this.#take(')')) throw this.#refuse('a group without end', '")"');
    return inner;
  }

  #class(): CodePoints {
    this.#at++;
    const isNegated = this.#take('^');
    let set: CodePoints = [];
    for (;;) {
      if (this.#next === undefined) throw this.#refuse('a class without end', '"]"');
      if (this.#take(']')) break;
      const first = this.#classAtom();
      if (this.#next === '-' && this.#chars[this.#at + 1] !== ']' && this.#chars[this.#at + 1] !== undefined) {
        this.#at++;
        const last = this.#classAtom();
        const from = onlyPoint(first);
        const to = onlyPoint(last);
        if (from === null || to === null || from > to) throw this.#refuse('a range without order', 'two characters');
        set = union(set, codePoints([[from, to]]));
      } else {
        set = union(set, first);
      }
    }
    return isNegated ? complement(set) : set;
  }

  #classAtom(): CodePoints {
    const char = this.#chars[this.#at++]!;
    return char === '\\' ? this.#escape(true) : single(char.codePointAt(0)!);
  }

  /** After the backslash. */
  #escape(isInClass: boolean): CodePoints {
    const char = this.#chars[this.#at++];
    if (char === undefined) throw this.#refuse('a backslash at the end', 'what it escapes');
    const known = CLASSES[char];
    if (known !== undefined) return known;
    if (isInClass && char === 'b') return single(8);
    if (char === '0' && /\d/.test(this.#next ?? '')) throw this.#refuse('an octal escape', '"\\x" with two digits');
    const control = CONTROLS[char];
    if (control !== undefined) return single(control);
    if (char === 'x') return single(this.#hex(2));
    if (char === 'c' && /[A-Za-z]/.test(this.#next ?? '')) return single(this.#chars[this.#at++]!.charCodeAt(0) & 31);
    if (char === 'u') return single(this.#unicode());
    if (/[bBpPk1-9]/.test(char)) {
      throw this.#refuse(`"\\${char}"`, 'a pattern without references, word boundaries and Unicode properties');
    }
    if (/[A-Za-z]/.test(char)) throw this.#refuse(`"\\${char}"`, 'an escape that is known');
    return single(char.codePointAt(0)!);
  }

  #unicode(): number {
    if (this.#take('{')) {
      const match = /^([0-9A-Fa-f]{1,6})\}/.exec(this.#chars.slice(this.#at, this.#at + 7).join(''));
      const point = Number.parseInt(match?.[1] ?? 'ffffffff', 16);
      if (match === null || point > 0x10ffff) throw this.#refuse('"\\u{" without a code point', 'up to 10FFFF');
      this.#at += match[0].length;
      return point;
    }
    const high = this.#hex(4);
    if (high < 0xd800 || high > 0xdbff || !this.#startsWith('\\u')) return high;
    this.#at += 2;
    const low = this.#hex(4);
    if (low < 0xdc00 || low > 0xdfff) throw this.#refuse('half a surrogate pair', 'both halves');
    return 0x10000 + (high - 0xd800) * 0x400 + (low - 0xdc00);
  }

  #hex(digits: number): number {
    const text = this.#chars.slice(this.#at, this.#at + digits).join('');
    if (text.length < digits || !/^[0-9A-Fa-f]+$/.test(text))
      throw this.#refuse('too few digits', `${digits} hex digits`);
    this.#at += digits;
    return Number.parseInt(text, 16);
  }
}

const onlyPoint = (set: CodePoints): number | null =>
  set.length === 1 && set[0]![0] === set[0]![1] ? set[0]![0] : null;
