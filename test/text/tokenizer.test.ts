import { readFileSync } from 'node:fs';
import { Tokenizer as PackageTokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeIds } from '../../src/text/detokenizer.js';
import { Tokenizer } from '../../src/text/tokenizer.js';

const golden = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../golden/tokenizer/${name}`, import.meta.url), 'utf8'));

type Row = [parsed: number[], decoded: string, plain?: number[]];
const cases = golden('cases.json') as { texts: string[]; results: Record<string, Row[]> };

describe.each(Object.keys(cases.results))('a tokenizer of the shape of %s', (name) => {
  const tokenizer = new Tokenizer(golden(`${name}.tokenizer.json`));
  const rows = cases.results[name]!;

  test('encode() equals the reference on every text', () => {
    const wrong = cases.texts.flatMap((text, i) => {
      const ids = tokenizer.encode(text);
      return JSON.stringify(ids) === JSON.stringify(rows[i]![0]) ? [] : [{ text, ids, reference: rows[i]![0] }];
    });
    expect(wrong).toEqual([]);
  });

  test('encode() equals the reference when special tokens are text', () => {
    const wrong = cases.texts.flatMap((text, i) => {
      const ids = tokenizer.encode(text, false);
      const reference = rows[i]![2] ?? rows[i]![0];
      return JSON.stringify(ids) === JSON.stringify(reference) ? [] : [{ text, ids, reference }];
    });
    expect(wrong).toEqual([]);
  });

  test('decodeIds() equals the reference', () => {
    const wrong = cases.texts.flatMap((_, i) => {
      const text = decodeIds(tokenizer.vocabulary, rows[i]![0], true);
      return text === rows[i]![1] ? [] : [{ text, reference: rows[i]![1] }];
    });
    expect(wrong).toEqual([]);
  });
});

// A second implementation beside the golden files, on texts that nobody chose.
describe.each(['qwen', 'mixtral', 'mixtral-metaspace'])('encode() of %s', (name) => {
  test('equals @huggingface/tokenizers on random text', () => {
    const json = golden(`${name}.tokenizer.json`);
    const tokenizer = new Tokenizer(json);
    const other = new PackageTokenizer(json as object, {});
    const text = fc.array(
      fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('  ', '\n', 'the ', '<s>', '<|im_end|>', "'s", '12')),
    );
    fc.assert(
      fc.property(text, (parts) => {
        const whole = parts.join('');
        expect(tokenizer.encode(whole)).toEqual(other.encode(whole, { add_special_tokens: false }).ids);
      }),
      { numRuns: 100 },
    );
  });
});
