/** Whether a value of an enum is also what the other keywords ask for. */
import { isPossible } from './code-point-automaton.js';
import { refuseFormat } from './refuse.js';
import { parseRegex, texts } from './regex.js';
import type { Facts } from './schema-facts.js';
import { STRING_FORMATS } from './string-formats.js';

/** @throws {MoestroError} UNSUPPORTED_FORMAT for lists and objects beside keywords that look into them. */
export function valueFits(value: unknown, facts: Facts): boolean {
  switch (typeof value) {
    case 'string':
      return facts.types.has('string') && stringFits(value, facts);
    case 'number':
      return (
        (facts.types.has('number') || (facts.types.has('integer') && Number.isInteger(value))) &&
        numberFits(value, facts)
      );
    case 'boolean':
      return facts.types.has('boolean');
    default: {
      if (value === null) return facts.types.has('null');
      const type = Array.isArray(value) ? 'array' : 'object';
      if (facts.spokenOf.has(type)) {
        throw refuseFormat(
          facts.pointer,
          `a value that is an ${type} beside keywords about its parts`,
          'one or the other',
        );
      }
      return facts.types.has(type);
    }
  }
}

function stringFits(value: string, { string: { min, max, patterns, formats } }: Facts): boolean {
  const length = [...value].length;
  if (length < min || length > max) return false;
  const regexes = [
    ...patterns.map((said) => parseRegex(said.value, said.pointer, false)),
    ...formats.flatMap((said) => {
      const pattern = STRING_FORMATS.get(said.value);
      return pattern === undefined ? [] : [parseRegex(pattern, said.pointer, true)];
    }),
  ];
  return regexes.every((regex) => isPossible([{ regex }, { regex: texts([value]) }], 'enum'));
}

function numberFits(value: number, { number: { low, high, multiplesOf } }: Facts): boolean {
  if (low !== null && (low.isExclusive ? value <= low.value : value < low.value)) return false;
  if (high !== null && (high.isExclusive ? value >= high.value : value > high.value)) return false;
  return multiplesOf.every((said) => Number.isInteger(value / said.value));
}
