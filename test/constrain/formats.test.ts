import { describe, expect, it } from 'vitest';
import { compileFormat, type FormatSource } from '../../src/constrain/format.js';
import { Machine } from '../../src/constrain/machine.js';
import { Formats } from '../../src/constrain/matcher.js';
import { ToolReader } from '../../src/constrain/tool-reader.js';
import { HERMES } from '../../src/constrain/tool-rules.js';
import { codeOf } from '../helpers/code-of.js';
import { drawText } from '../helpers/drawn-text.js';
import { randomVocabulary } from '../helpers/random-vocabulary.js';

const readsWhole = (source: FormatSource, text: string): boolean => {
  const machine = new Machine(compileFormat(source, null));
  let place: typeof machine.start | null = machine.start;
  for (const byte of new TextEncoder().encode(text)) place = place === null ? null : machine.step(place, byte);
  return place?.isEnd ?? false;
};
const schema = (value: unknown): FormatSource => ({ kind: 'json_schema', schema: value });
const code = (source: FormatSource): string | null => codeOf(() => compileFormat(source, null));

describe('compileFormat() of JSON Schema', () => {
  it.each([
    [
      'whole numbers',
      { type: 'integer', minimum: -12, maximum: 105 },
      ['-12', '0', '99', '105'],
      ['-13', '106', '-0', '05', '1.0'],
    ],
    [
      'numbers',
      { type: 'number', minimum: -0.5, exclusiveMaximum: 2.25 },
      ['-0.5', '0', '2.249', '-0.3'],
      ['-0.51', '2.25', '3', '-1'],
    ],
    ['multiples', { type: 'integer', multipleOf: 7 }, ['0', '14', '-21', '700'], ['1', '15', '-20']],
    [
      'properties in order',
      { type: 'object', properties: { a: true, b: true }, required: ['b'] },
      ['{"a":1,"b":2}', '{ "b": null }'],
      ['{"b":2,"a":1}', '{}', '{"a":1}', '{"b":1,"c":1}'],
    ],
    [
      'other properties, never a named one twice',
      { properties: { a: { type: 'null' } }, additionalProperties: { type: 'integer' } },
      ['{"a":null,"b":1}', '{"ab":1}', '{}'],
      ['{"a":1}', '{"b":1,"a":1}', '{"b":null}'],
    ],
    [
      'lists with first items',
      { type: 'array', prefixItems: [{ type: 'null' }, { type: 'boolean' }], items: { type: 'integer' } },
      ['[]', '[null]', '[null, true,1,2]'],
      ['[true]', '[null,1]'],
    ],
    [
      'counts of items',
      { type: 'array', items: { const: 1 }, minItems: 2, maxItems: 3 },
      ['[1,1]', '[1,1,1]'],
      ['[1]', '[]', '[1,1,1,1]'],
    ],
    [
      'alternatives beside keywords',
      { type: 'string', anyOf: [{ maxLength: 1 }, { pattern: '^x{3}$' }] },
      ['""', '"a"', '"xxx"'],
      ['"ab"', '1'],
    ],
    ['merged parts', { allOf: [{ minimum: 3 }, { type: 'integer' }], maximum: 4 }, ['3', '4'], ['2', '5', '3.5']],
  ])('reads %s', (_name, value, valid, invalid) => {
    expect(valid.filter((text) => !readsWhole(schema(value), text))).toEqual([]);
    expect(invalid.filter((text) => readsWhole(schema(value), text))).toEqual([]);
  });

  it.each([
    [{ not: {} }, '#/not'],
    [{ type: 'array', uniqueItems: true }, '#/uniqueItems'],
    [{ properties: { 'a/b': { if: {} } } }, '#/properties/a~1b/if'],
    [{ $ref: 'http://example.com/x' }, '#/$ref'],
    [{ $ref: '#/$defs/none' }, '#/$ref'],
    [{ type: 'strange' }, '#/type'],
    [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, '#/oneOf'],
    [{ type: 'string', format: 'iri' }, '#/format'],
    [{ type: 'string', pattern: '(?=x)' }, '#/pattern'],
    [{ minLength: -1 }, '#/minLength'],
    [{ items: 3 }, '#/items'],
    [{ type: 'number', multipleOf: 0.01 }, '#/multipleOf'],
  ])('refuses %j by its place', (value, place) => {
    const refused = () => compileFormat(schema(value), null);
    expect(codeOf(refused)).toBe('UNSUPPORTED_FORMAT');
    expect(refused).toThrow(place);
  });

  it.each([
    [
      'circles of references',
      { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/b' }, b: { allOf: [{ $ref: '#/$defs/a' }] } } },
    ],
    ['values that never end', { type: 'object', properties: { me: { $ref: '#' } }, required: ['me'] }],
    ['what contradicts itself', { allOf: [{ type: 'string' }, { type: 'integer' }] }],
    ['false', false],
    ['what is no schema', 'string'],
    [
      'alternatives multiplied',
      { allOf: Array.from({ length: 12 }, () => ({ anyOf: [{ minimum: 1 }, { maximum: 2 }, { minimum: 3 }] })) },
    ],
    ['patterns that blow up', { type: 'string', pattern: '^(a|b)*a(a|b){14}$', maxLength: 1000 }],
    ['patterns with huge bounds and a length', { type: 'string', pattern: '^a{1,99999999}$', maxLength: 5 }],
    ['deep nesting', JSON.parse(`${'{"items":'.repeat(400)}{}${'}'.repeat(400)}`)],
    [
      'doubled references',
      {
        $ref: '#/$defs/d9',
        $defs: Object.fromEntries(
          Array.from({ length: 10 }, (_, i) => [
            `d${i}`,
            i === 0
              ? { anyOf: [{}, { minimum: 1 }] }
              : {
                  allOf: [
                    { anyOf: [{ $ref: `#/$defs/d${i - 1}` }, { title: `${i}` }] },
                    { anyOf: [{ $ref: `#/$defs/d${i - 1}` }, { title: `x${i}` }] },
                  ],
                },
          ]),
        ),
      },
    ],
  ])('refuses %s', (_name, value) => {
    expect(code(schema(value))).toBe('UNSUPPORTED_FORMAT');
  });

  it('takes bounds of any size without growing', () => {
    const program = compileFormat(
      schema({ type: 'array', items: { type: 'string', minLength: 1e9 }, maxItems: 2e9 }),
      null,
    );
    expect(program.kinds.length).toBeLessThan(500);
    const manyNames = { enum: Array.from({ length: 10_000 }, (_, i) => `name ${i}`) };
    expect(readsWhole(schema(manyNames), '"name 9999"')).toBe(true);
    expect(readsWhole(schema(manyNames), '"name 10000"')).toBe(false);
  });
});

describe('compileFormat() of a grammar', () => {
  const grammar = (source: string): FormatSource => ({ kind: 'grammar', source });

  it('reads rules, groups, classes, repetitions and comments', () => {
    const source = 'root ::= "<" (item ("," item)*)? ">" # a list\nitem ::= [a-c]{2} | "\\x21" |\n  "(" root ")"\n';
    expect(['<>', '<ab,!>', '<(<ca>)>'].filter((text) => !readsWhole(grammar(source), text))).toEqual([]);
    expect(['<', '<a>', '<ab,>', '<abc>'].filter((text) => readsWhole(grammar(source), text))).toEqual([]);
  });

  it('reads what can be read in many ways, nested as deep as it comes', () => {
    const source = 'root ::= a\na ::= "(" a ")" | "(" a ")" | "x" b\nb ::= "" | "y" b | "y" b\n';
    expect(readsWhole(grammar(source), `${'('.repeat(300)}x${'y'.repeat(50)}${')'.repeat(300)}`)).toBe(true);
    expect(readsWhole(grammar(source), '((x)')).toBe(false);
  });

  it.each([
    '',
    'root = "a"',
    'root ::= other',
    'root ::= root "a" | "a"',
    'a ::= "x"',
    'root ::= "a',
    'root ::= [z-a]',
    'root ::= "a"\nroot ::= "b"',
    `root ::= ${'('.repeat(200)}`,
    'root ::= a\na ::= b? a "x"\nb ::= "y"',
  ])('refuses %j', (source) => {
    expect(code(grammar(source))).toBe('UNSUPPORTED_FORMAT');
  });
});

describe('tools', () => {
  const tools = [
    {
      name: 'weather',
      parameters: { type: 'object', properties: { city: { type: 'string', maxLength: 9 } }, required: ['city'] },
    },
    { name: 'now', parameters: {} },
  ];
  const formats = new Formats(randomVocabulary(1_500, 3));

  it('are called in the form that the reader takes apart', () => {
    const program = compileFormat(null, { marks: HERMES, tools, isOptional: false, callsMax: 16 });
    let calls = 0;
    for (let seed = 0; seed < 12; ++seed) {
      const { text, isWhole } = drawText(formats, program, seed);
      if (!isWhole) continue;
      const reader = new ToolReader(HERMES);
      // In pieces of any size.
      const events = [...text].flatMap((char) => reader.push(char)).concat(reader.flush());
      const args: string[] = [];
      for (const event of events) {
        if (event.kind === 'call') args.push('');
        else if (event.kind === 'arguments') args[args.length - 1] += event.text;
        else expect.fail(`text ${JSON.stringify(event.text)}`);
      }
      for (const one of args) expect(typeof JSON.parse(one)).toBe('object');
      calls += args.length;
      expect(reader.isWhole).toBe(true);
    }
    expect(calls).toBeGreaterThan(5);
  });

  it('leave text as it is where none is called, also what only begins like a call', () => {
    const reader = new ToolReader(HERMES);
    const pieces = ['Hello <', 'tool', ' > and <tool_', 'cal', ' \n', 'end <tool_call'];
    const events = pieces.flatMap((piece) => reader.push(piece)).concat(reader.flush());
    expect(events.map((event) => (event.kind === 'text' ? event.text : '?')).join('')).toBe(pieces.join(''));
  });
});
