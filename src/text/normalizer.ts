/**
 * What happens to text before it is cut into pieces: the `normalizer` of tokenizer.json.
 */
import { compilePattern, literalPattern } from './pattern.js';
import { asArray, asFlag, asObject, asString, unsupported } from './tokenizer-json.js';

export type Normalizer = (text: string) => string;

const UNICODE_FORMS = ['NFC', 'NFD', 'NFKC', 'NFKD'] as const;
const SUPPORTED = [...UNICODE_FORMS, 'Prepend', 'Replace', 'Strip', 'Lowercase', 'Sequence'];

/** The `pattern` of Replace and Split: {"String": ".."} or {"Regex": ".."}. */
export function readPattern(value: unknown, place: string): RegExp {
  const pattern = asObject(value, place);
  if (pattern.String !== undefined) return literalPattern(asString(pattern.String, `${place}.String`));
  return compilePattern(asString(pattern.Regex, `${place}.Regex`), place);
}

/**
 * @param value the `normalizer` of tokenizer.json; null for none.
 * @throws {MoestroError} UNSUPPORTED_TOKENIZER, MODEL_INVALID
 */
export function createNormalizer(value: unknown, place = 'tokenizer.json normalizer'): Normalizer {
  if (value === null || value === undefined) return (text) => text;
  const config = asObject(value, place);
  const type = asString(config.type, `${place}.type`);
  const form = UNICODE_FORMS.find((name) => name === type);
  if (form !== undefined) return (text) => text.normalize(form);
  switch (type) {
    case 'Prepend': {
      const prefix = asString(config.prepend, `${place}.prepend`);
      return (text) => (text === '' ? text : prefix + text);
    }
    case 'Replace': {
      const pattern = readPattern(config.pattern, `${place}.pattern`);
      const content = asString(config.content, `${place}.content`);
      // As a function: "$&" in a model's replacement is text, not a reference.
      return (text) => text.replace(pattern, () => content);
    }
    case 'Strip': {
      const left = asFlag(config.strip_left, `${place}.strip_left`, true);
      const right = asFlag(config.strip_right, `${place}.strip_right`, true);
      return (text) => {
        const shorter = left ? text.replace(/^\p{White_Space}+/u, '') : text;
        return right ? shorter.slice(0, endWithoutSpace(shorter)) : shorter;
      };
    }
    case 'Lowercase':
      return (text) => text.toLowerCase();
    case 'Sequence': {
      const parts = asArray(config.normalizers, `${place}.normalizers`);
      const steps = parts.map((part, i) => createNormalizer(part, `${place}.normalizers[${i}]`));
      return (text) => steps.reduce((current, step) => step(current), text);
    }
    default:
      throw unsupported(place, type, SUPPORTED);
  }
}

const WHITE_SPACE = /^\p{White_Space}$/u;

/** Where the trailing white space of text begins. Scans from the end: /\s+$/ would be quadratic in runs of spaces. */
export function endWithoutSpace(text: string): number {
  let end = text.length;
  while (end > 0 && WHITE_SPACE.test(text[end - 1]!)) --end;
  return end;
}
