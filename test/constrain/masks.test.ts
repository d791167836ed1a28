/** Masks from the shared walk against the plain meaning: a token is allowed when its bytes can be read one after another. */
import { describe, expect, it } from 'vitest';
import { compileFormat, type FormatSource } from '../../src/constrain/format.js';
import { Machine, type Place } from '../../src/constrain/machine.js';
import { Formats } from '../../src/constrain/matcher.js';
import { HERMES } from '../../src/constrain/tool-rules.js';
import { drawText, idsOf } from '../helpers/drawn-text.js';
import { randomVocabulary } from '../helpers/random-vocabulary.js';

const RECURSIVE = {
  type: 'object',
  properties: {
    name: { type: 'string', minLength: 3, maxLength: 30 },
    tags: { type: 'array', items: { type: 'string', maxLength: 300 }, minItems: 1, maxItems: 90 },
    next: { anyOf: [{ $ref: '#' }, { type: 'null' }] },
  },
  required: ['name', 'tags', 'next'],
};
const FORMATS: readonly (readonly [string, FormatSource | null])[] = [
  ['any object', { kind: 'json_object' }],
  ['a recursive schema with counts', { kind: 'json_schema', schema: RECURSIVE }],
  ['a pattern with a large bound', { kind: 'regex', pattern: '([a-z ]{2,200}[.!]){1,9}' }],
  [
    'an ambiguous grammar',
    { kind: 'grammar', source: 'root ::= e\ne ::= t | t "+" e | t "-" e\nt ::= [a-z]+ | [a-z]+ | "(" e ")"' },
  ],
  ['tools that may be called', null],
];
const TOOLS = { marks: HERMES, tools: [{ name: 'f', parameters: RECURSIVE }], isOptional: true, callsMax: 16 };

describe('Masks.maskOf()', () => {
  it.each(FORMATS)('holds exactly the tokens that can be read, in %s', (name, source) => {
    const formats = new Formats(randomVocabulary(2_000, 2));
    const { vocabSize, tokenBytes } = formats.masks.trie;
    const program = compileFormat(source, source === null ? TOOLS : null);
    let checked = 0;
    for (let seed = 0; seed < 3; ++seed) {
      const machine = new Machine(program);
      const masks: (readonly number[])[] = [];
      const { tokenIds } = drawText(formats, program, seed, {
        tokensMax: 60,
        closing: 1,
        visit: (_matcher, mask) => masks.push(idsOf(mask, vocabSize)),
      });
      const read = (from: Place, id: number): Place | null => {
        let place: Place | null = from;
        for (let i = tokenBytes.offsets[id]!; i < tokenBytes.offsets[id + 1]! && place !== null; ++i) {
          place = machine.step(place, tokenBytes.bytes[i]!);
        }
        return place;
      };
      let place = machine.start;
      for (const [at, mask] of masks.entries()) {
        const readable: number[] = [];
        for (let id = 0; id < vocabSize - 1; ++id) if (read(place, id) !== null) readable.push(id);
        expect(mask, `${name}, seed ${seed}, token ${at}`).toEqual(readable);
        checked++;
        if (at < tokenIds.length) place = read(place, tokenIds[at]!)!;
      }
    }
    expect(checked).toBeGreaterThan(10);
  });

  it('works a mask out once for places that are alike', () => {
    const formats = new Formats(randomVocabulary(2_000, 2));
    const program = compileFormat({ kind: 'json_schema', schema: RECURSIVE }, null);
    drawText(formats, program, 1, { tokensMax: 200 });
    const { made } = formats.masks;
    drawText(formats, program, 1, { tokensMax: 200 });
    expect(made).toBeGreaterThan(0);
    expect(formats.masks.made).toBe(made);
  });
});
