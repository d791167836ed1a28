/**
 * GBNF, the grammar notation of llama.cpp: rules of quoted texts, character classes, groups, alternatives and repetitions.
 *
 *     root ::= "yes" | "no" ("," [a-z]{2,5})*
 */
import { ALL, type CodePoints, codePoints, complement, union, utf8 } from './code-points.js';
import { choice, type Expression, literal, NOTHING, repeat, type Rules, rule, sequence } from './expression.js';
import { NESTING_MAX, RULES_MAX, SOURCE_LENGTH_MAX } from './limits.js';
import { refuseFormat } from './refuse.js';

/** @throws {MoestroError} UNSUPPORTED_FORMAT with line and column. */
export function compileGrammar(source: string): Rules {
  if (source.length > SOURCE_LENGTH_MAX) {
    throw refuseFormat('the grammar', `${source.length} characters`, `at most ${SOURCE_LENGTH_MAX}`);
  }
  return new GrammarParser(source).parse();
}

const NAME = /[A-Za-z0-9_-]/;

class GrammarParser {
  readonly #chars: readonly string[];
  #at = 0;
  #depth = 0;
  readonly #index = new Map<string, number>([['root', 0]]);
  readonly #expressions: (Expression | undefined)[] = [undefined];
  /** Where each rule was first called, for errors about those that are missing. */
  readonly #calledAt = new Map<number, number>();

  constructor(source: string) {
    this.#chars = [...source];
  }

  parse(): Rules {
    this.#skipBlank(true);
    while (this.#next !== undefined) {
      const from = this.#at;
      const index = this.#indexOf(this.#name());
      this.#skipBlank(true);
      if (!this.#takes('::=')) throw this.#refuse(this.#shown(), '"::="');
      if (this.#expressions[index] !== undefined)
        throw this.#refuse('a rule that is there already', 'another name', from);
      this.#skipBlank(true);
      this.#expressions[index] = this.#choice(false);
      this.#skipBlank(true);
    }
    const names = [...this.#index.keys()];
    for (const [index, name] of names.entries()) {
      if (this.#expressions[index] !== undefined) continue;
      throw this.#refuse(`no rule "${name}"`, 'one of that name', this.#calledAt.get(index) ?? 0);
    }
    return { expressions: this.#expressions.map((expression) => expression ?? NOTHING), names };
  }

  get #next(): string | undefined {
    return this.#chars[this.#at];
  }

  #takes(text: string): boolean {
    if (this.#chars.slice(this.#at, this.#at + text.length).join('') !== text) return false;
    this.#at += text.length;
    return true;
  }

  #shown(): string {
    return this.#next === undefined ? 'the end' : JSON.stringify(this.#next);
  }

  #refuse(found: string, needed: string, at = this.#at): Error {
    const before = this.#chars.slice(0, at).join('').split('\n');
    return refuseFormat(`line ${before.length}, column ${before.at(-1)!.length + 1} of the grammar`, found, needed);
  }

  /** White space and comments; line breaks only where `acrossLines`. */
  #skipBlank(acrossLines: boolean): void {
    for (;;) {
      const char = this.#next;
      if (char === '#') while (this.#next !== undefined && this.#next !== '\n' && this.#next !== '\r') this.#at++;
      else if (char === ' ' || char === '\t' || (acrossLines && (char === '\n' || char === '\r'))) this.#at++;
      else return;
    }
  }

  #name(): string {
    let name = '';
    while (this.#next !== undefined && NAME.test(this.#next)) name += this.#chars[this.#at++];
    if (name === '') throw this.#refuse(this.#shown(), 'the name of a rule');
    return name;
  }

  #indexOf(name: string): number {
    const known = this.#index.get(name);
    if (known !== undefined) return known;
    if (this.#index.size >= RULES_MAX) throw this.#refuse(`more than ${RULES_MAX} rules`, 'fewer');
    this.#index.set(name, this.#index.size);
    this.#expressions.push(undefined);
    return this.#index.size - 1;
  }

  #choice(isNested: boolean): Expression {
    if (++this.#depth > NESTING_MAX) throw this.#refuse(`groups nested deeper than ${NESTING_MAX}`, 'fewer');
    const options = [this.#sequence(isNested)];
    for (;;) {
      this.#skipBlank(isNested);
      if (!this.#takes('|')) break;
      this.#skipBlank(true);
      options.push(this.#sequence(isNested));
    }
    this.#depth--;
    return choice(options);
  }

  #sequence(isNested: boolean): Expression {
    const parts: Expression[] = [];
    for (;;) {
      this.#skipBlank(isNested);
      const item = this.#item();
      if (item === null) return sequence(parts);
      parts.push(this.#repeated(item));
    }
  }

  #repeated(item: Expression): Expression {
    let whole = item;
    for (;;) {
      if (this.#takes('*')) whole = repeat(whole, 0, Number.POSITIVE_INFINITY);
      else if (this.#takes('+')) whole = repeat(whole, 1, Number.POSITIVE_INFINITY);
      else if (this.#takes('?')) whole = repeat(whole, 0, 1);
      else if (this.#next === '{') whole = this.#bounded(whole);
      else return whole;
    }
  }

  #bounded(item: Expression): Expression {
    const match = /^\{\s*(\d{0,9})\s*(,\s*(\d{0,9})\s*)?\}/.exec(this.#chars.slice(this.#at, this.#at + 40).join(''));
    if (match === null || (match[1] === '' && match[2] === undefined)) {
      throw this.#refuse('"{" that begins no bounds', '"{2}", "{2,}" or "{2,5}"');
    }
    const min = Number(match[1]);
    const max = match[2] === undefined ? min : match[3] === '' ? Number.POSITIVE_INFINITY : Number(match[3]);
    if (max < min) throw this.#refuse(`bounds from ${min} to ${max}`, 'the lower one first');
    this.#at += match[0].length;
    return repeat(item, min, max);
  }

  /** null where the sequence is over. */
  #item(): Expression | null {
    const char = this.#next;
    if (char === '"') return this.#text();
    if (char === '[') return utf8(this.#class());
    if (char === '.') {
      this.#at++;
      return utf8(ALL);
    }
    if (char === '(') {
      this.#at++;
      const inner = this.#choice(true);
      this.#skipBlank(true);
      if (!this.#takes(')')) throw this.#refuse(this.#shown(), '")"');
      return inner;
    }
    if (char === undefined || !NAME.test(char)) {
      if (char === undefined || '|)\n\r'.includes(char)) return null;
      throw this.#refuse(this.#shown(), 'a text, a class, a group or a rule');
    }
    const from = this.#at;
    const name = this.#name();
    // Within a group a name on a new line could begin the next rule.
    this.#skipBlank(false);
    if (this.#chars.slice(this.#at, this.#at + 3).join('') === '::=') {
      this.#at = from;
      return null;
    }
    const index = this.#indexOf(name);
    if (!this.#calledAt.has(index)) this.#calledAt.set(index, from);
    return rule(index);
  }

  #text(): Expression {
    this.#at++;
    let text = '';
    while (!this.#takes('"')) {
      if (this.#next === undefined || this.#next === '\n') throw this.#refuse('a text without end', '"\\""');
      text += this.#next === '\\' ? String.fromCodePoint(this.#escape()) : this.#chars[this.#at++];
    }
    return literal(text);
  }

  #class(): CodePoints {
    this.#at++;
    const isNegated = this.#takes('^');
    const ranges: [number, number][] = [];
    let set: CodePoints = [];
    while (!this.#takes(']')) {
      if (this.#next === undefined || this.#next === '\n') throw this.#refuse('a class without end', '"]"');
      const first = this.#classChar();
      let last = first;
      if (this.#next === '-' && this.#chars[this.#at + 1] !== ']' && this.#chars[this.#at + 1] !== undefined) {
        this.#at++;
        last = this.#classChar();
      }
      if (last < first) throw this.#refuse('a range without order', 'the lower character first');
      ranges.push([first, last]);
    }
    set = union(set, codePoints(ranges));
    return isNegated ? complement(set) : set;
  }

  #classChar(): number {
    return this.#next === '\\' ? this.#escape() : this.#chars[this.#at++]!.codePointAt(0)!;
  }

  #escape(): number {
    this.#at++;
    const char = this.#chars[this.#at++];
    const digits = { x: 2, u: 4, U: 8 }[char ?? ''];
    if (digits !== undefined) {
      const text = this.#chars.slice(this.#at, this.#at + digits).join('');
      const point = /^[0-9A-Fa-f]+$/.test(text) && text.length === digits ? Number.parseInt(text, 16) : 0x110000;
      if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) {
        throw this.#refuse(`"\\${char}${text}"`, `${digits} hex digits of a character`);
      }
      this.#at += digits;
      return point;
    }
    const control = { n: 10, r: 13, t: 9 }[char ?? ''];
    if (control !== undefined) return control;
    if (char !== undefined && '"\\[]-^'.includes(char)) return char.charCodeAt(0);
    throw this.#refuse(`"\\${char ?? ''}"`, '\\n, \\r, \\t, \\", \\\\, \\[, \\], \\x, \\u or \\U');
  }
}
