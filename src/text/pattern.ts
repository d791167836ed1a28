/**
 * How is a pattern of tokenizer.json (Oniguruma syntax) written as a JavaScript regular expression?
 *
 * The two differ where it matters for text: Oniguruma's \s is the Unicode property White_Space (with U+0085, without
 * U+FEFF), its \d and \w are Unicode too, `.` excludes the newline alone, and `(?i:...)` may cover a part of the
 * pattern. What is not known to mean the same in both is refused, never guessed.
 */
import { invalid, unsupported } from './tokenizer-json.js';

const SUPPORTED = [
  'literals, classes, \\s \\d \\w \\p{..}, groups, look-around, (?i:..) over literals, greedy and lazy counts',
];

/** Inside and outside of brackets the same, so these are fragments of a class. */
const CLASS_OF_ESCAPE: Readonly<Record<string, string>> = {
  s: '\\p{White_Space}',
  d: '\\p{Nd}',
  w: '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}',
  h: '0-9A-Fa-f',
};
const CONTROL_ESCAPES = 'rntvf';
const SYNTAX = '^$\\.*+?()[]{}|/';

/** Letters whose case folding reaches beyond their own two cases. */
const EXTRA_FOLDS: Readonly<Record<string, string>> = { s: 'ſ', k: '\u212a' };

const literal = (char: string): string => (SYNTAX.includes(char) ? `\\${char}` : char);

const literalAnyCase = (char: string): string => {
  const lower = char.toLowerCase();
  const upper = char.toUpperCase();
  return lower === upper ? literal(char) : `[${lower}${upper}${EXTRA_FOLDS[lower] ?? ''}]`;
};

class Translator {
  private readonly source: string;
  private readonly place: string;
  private at = 0;
  private output = '';
  /** Case-insensitivity of each open group, innermost last. */
  private readonly anyCase: boolean[] = [false];

  constructor(source: string, place: string) {
    this.source = source;
    this.place = place;
  }

  translate(): string {
    while (this.at < this.source.length) this.next();
    return this.output;
  }

  private refuse(found: string): Error {
    return unsupported(`${this.place} at ${this.at} of its pattern`, found, SUPPORTED);
  }

  private next(): void {
    const char = String.fromCodePoint(this.source.codePointAt(this.at)!);
    if (char === '\\') this.output += this.escape(false);
    else if (char === '[') this.output += this.characterClass();
    else if (char === '(') this.open();
    else if (char === ')') {
      if (this.anyCase.length > 1) this.anyCase.pop();
      this.emit(')');
    } else if (char === '.') this.emit('[^\\n]', 1);
    else if (char === '^') this.emit('(?<![^\\n])', 1);
    else if (char === '$') this.emit('(?![^\\n])', 1);
    else if ('*+?'.includes(char)) this.quantifier(char);
    else if (char === '{') this.counted();
    else if (char === '|') this.emit('|');
    else this.emit(this.anyCase.at(-1) ? literalAnyCase(char) : literal(char), char.length);
  }

  private emit(text: string, consumed = text.length): void {
    this.output += text;
    this.at += consumed;
  }

  private quantifier(char: string): void {
    this.emit(char);
    if (this.source[this.at] === '+') throw this.refuse(`possessive ${char}+`);
    if (this.source[this.at] === '?') this.emit('?');
  }

  private counted(): void {
    const count = /^\{\d+(?:,\d*)?\}/.exec(this.source.slice(this.at, this.at + 24))?.[0];
    if (count === undefined) {
      this.emit('\\{', 1);
      return;
    }
    this.emit(count);
    if (this.source[this.at] === '+') throw this.refuse(`${count}+`);
    if (this.source[this.at] === '?') this.emit('?');
  }

  private open(): void {
    const rest = this.source.slice(this.at, this.at + 5);
    const inherited = this.anyCase.at(-1)!;
    if (rest.startsWith('(?i:') || rest.startsWith('(?-i:')) {
      this.anyCase.push(rest.startsWith('(?i:'));
      this.emit('(?:', rest.indexOf(':') + 1);
      return;
    }
    const prefix = /^\((?:\?(?:<=|<!|[:=!]))?/.exec(rest)![0];
    if (prefix === '(' && rest[1] === '?') throw this.refuse(rest);
    this.anyCase.push(inherited);
    this.emit(prefix === '(' ? '(?:' : prefix, prefix.length);
  }

  /** An escape, as a fragment for inside or outside of brackets; consumes it. */
  private escape(inClass: boolean): string {
    const char = this.source[this.at + 1];
    if (char === undefined) throw invalid(this.place, this.source, 'a pattern that does not end in a backslash');
    const rest = this.source.slice(this.at, this.at + 48);
    const property = /^\\[pP]\{(\^?)([A-Za-z_]+)\}/.exec(rest);
    if (property !== null) {
      this.at += property[0].length;
      const negated = (char === 'P') !== (property[1] === '^');
      return propertyEscape(property[2]!, negated) ?? this.fail(property[0]);
    }
    const code = /^\\(?:x\{([0-9A-Fa-f]{1,6})\}|u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2}))/.exec(rest);
    if (code !== null) {
      this.at += code[0].length;
      return `\\u{${code[1] ?? code[2] ?? code[3]}}`;
    }
    const fragment = CLASS_OF_ESCAPE[char.toLowerCase()];
    if (fragment !== undefined) {
      const negated = char !== char.toLowerCase();
      if (inClass && negated && !/^\\p\{\w+\}$/.test(fragment)) throw this.refuse(`[..\\${char}..]`);
      this.at += 2;
      if (!inClass) return `[${negated ? '^' : ''}${fragment}]`;
      return negated ? fragment.replace('\\p', '\\P') : fragment;
    }
    if (CONTROL_ESCAPES.includes(char)) {
      this.at += 2;
      return `\\${char}`;
    }
    if (/[A-Za-z0-9]/.test(char)) throw this.refuse(`\\${char}`);
    this.at += 2;
    return inClass && char === '-' ? '\\-' : literal(char);
  }

  private fail(found: string): never {
    throw this.refuse(found);
  }

  private characterClass(): string {
    let text = '[';
    ++this.at;
    if (this.source[this.at] === '^') {
      text += '^';
      ++this.at;
    }
    for (let first = true; ; first = false) {
      const code = this.source.codePointAt(this.at);
      if (code === undefined) throw invalid(this.place, this.source, 'a pattern whose brackets are closed');
      const char = String.fromCodePoint(code);
      if (char === ']' && !first) break;
      if (char === '[' || this.source.startsWith('&&', this.at)) throw this.refuse('a class inside a class');
      if (char === '\\') {
        text += this.escape(true);
        continue;
      }
      if (this.anyCase.at(-1) && char.toLowerCase() !== char.toUpperCase())
        throw this.refuse('letters in [] under (?i:');
      text += char === '-' ? char : literal(char);
      this.at += char.length;
    }
    ++this.at;
    return `${text}]`;
  }
}

/** \p{L}, \p{White_Space} and, by Oniguruma's short form, \p{Han} for a script; null when there is no such property. */
function propertyEscape(name: string, negated: boolean): string | null {
  for (const body of [name, `Script=${name}`]) {
    const text = `\\${negated ? 'P' : 'p'}{${body}}`;
    try {
      new RegExp(text, 'u');
      return text;
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
  }
  return null;
}

/**
 * @param source pattern in Oniguruma's syntax, from a model's file.
 * @param place where it stands, for messages.
 * @returns an expression with flags g and u.
 * @throws {MoestroError} UNSUPPORTED_TOKENIZER for constructs outside of the list above, MODEL_INVALID for patterns
 * that are none.
 */
export function compilePattern(source: string, place: string): RegExp {
  const translated = new Translator(source, place).translate();
  try {
    return new RegExp(translated, 'gu');
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw invalid(place, source, `a pattern that compiles (${error.message})`);
  }
}

/** An expression for exactly this text. */
export function literalPattern(text: string): RegExp {
  return new RegExp(Array.from(text, literal).join(''), 'gu');
}
