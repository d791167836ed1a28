/** How JSON is written, RFC 8259: characters of strings, white space, numbers that stay exact. */
import { type CodePoints, codePoints, intersect, minus, utf8 } from './code-points.js';
import { bytes, choice, type Expression, literal, optional, repeat, sequence } from './expression.js';

const CONTROL: CodePoints = [[0, 0x1f]];
/** Quote, backslash and controls: they stand in strings as escapes only. */
const ESCAPED = codePoints([...CONTROL, [0x22, 0x22], [0x5c, 0x5c]]);

const SHORT_ESCAPES: Readonly<Record<number, string>> = {
  8: '\\b',
  9: '\\t',
  10: '\\n',
  12: '\\f',
  13: '\\r',
  34: '\\"',
  92: '\\\\',
};

/** Characters of a set as they stand in a string: themselves, or the one escape of those that need it. */
export function stringCharacters(set: CodePoints): Expression {
  const options = [utf8(minus(set, ESCAPED))];
  for (const [first, last] of intersect(set, ESCAPED)) {
    for (let point = first; point <= last; ++point) {
      options.push(literal(SHORT_ESCAPES[point] ?? `\\u${point.toString(16).padStart(4, '0')}`));
    }
  }
  return choice(options);
}

/** Characters of a set that need no escape: for names of properties. */
export const plainCharacters = (set: CodePoints): Expression => utf8(minus(set, ESCAPED));

const HEX: Expression = bytes([
  [0x30, 0x39],
  [0x41, 0x46],
  [0x61, 0x66],
]);
const hex = (digits: string): Expression =>
  bytes([...digits].map((digit) => [digit.charCodeAt(0), digit.charCodeAt(0)] as const));

/** Any character of a string. Escapes of half a surrogate pair are left out: alone they are no character. */
export const ANY_CHARACTER: Expression = choice([
  utf8(minus(codePoints([[0, 0x10ffff]]), ESCAPED)),
  sequence([
    literal('\\'),
    choice([
      hex('"\\/bfnrt'),
      sequence([
        literal('u'),
        choice([
          sequence([hex('0123456789abcefABCEF'), HEX, HEX, HEX]),
          sequence([hex('dD'), hex('01234567'), HEX, HEX]),
        ]),
      ]),
    ]),
  ]),
]);

export const quoted = (content: Expression): Expression => sequence([literal('"'), content, literal('"')]);
export const ANY_STRING: Expression = quoted(repeat(ANY_CHARACTER, 0, Number.POSITIVE_INFINITY));

/**
 * White space between the tokens of JSON: none, a space, or a line break and up to 20 spaces or tabs of indentation. Without
 * a bound a model that is unsure writes blanks for ever.
 */
export const SPACE: Expression = choice([
  literal(' '),
  sequence([
    literal('\n'),
    repeat(
      bytes([
        [0x09, 0x09],
        [0x20, 0x20],
      ]),
      0,
      20,
    ),
  ]),
  sequence([]),
]);

export const DIGIT: Expression = bytes([[0x30, 0x39]]);
export const NONZERO: Expression = bytes([[0x31, 0x39]]);
/** Digits of a whole number, and of a fraction, at most: values stay within what a double tells apart from infinity. */
const WHOLE_DIGITS = 18;
const FRACTION_DIGITS = 15;

/** Whole numbers without a bound. */
export const INTEGER: Expression = sequence([
  optional(literal('-')),
  choice([literal('0'), sequence([NONZERO, repeat(DIGIT, 0, WHOLE_DIGITS - 1)])]),
]);

export const NUMBER: Expression = sequence([
  INTEGER,
  optional(sequence([literal('.'), repeat(DIGIT, 1, FRACTION_DIGITS)])),
  optional(sequence([hex('eE'), optional(hex('+-')), repeat(DIGIT, 1, 2)])),
]);

/** A value exactly as JSON.stringify writes it. */
export const constant = (value: unknown): Expression => literal(JSON.stringify(value));
