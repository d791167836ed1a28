import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compileFormat } from '../../src/constrain/format.js';
import { Machine } from '../../src/constrain/machine.js';
import { codeOf } from '../helpers/code-of.js';

const readsWhole = (machine: Machine, text: string): boolean => {
  let place: typeof machine.start | null = machine.start;
  for (const byte of new TextEncoder().encode(text)) {
    if (place === null) return false;
    place = machine.step(place, byte);
  }
  return place?.isEnd ?? false;
};
const machineOf = (pattern: string): Machine => new Machine(compileFormat({ kind: 'regex', pattern }, null));

/** Patterns over few letters, so that short texts often match. */
const { pattern } = fc.letrec<{ pattern: string; atom: string; part: string }>((tie) => ({
  atom: fc.oneof(
    { maxDepth: 3 },
    fc.constantFrom('a', 'b', '.', '[ab]', '[^a]', '\\d', '\\w', 'é', '\\S', '[a-c1-3]'),
    tie('pattern').map((inner) => `(?:${inner})`),
  ),
  part: fc
    .tuple(tie('atom'), fc.constantFrom('', '', '*', '+', '?', '{2}', '{1,3}', '{0,}', '{2,}?'))
    .map((both) => both.join('')),
  pattern: fc
    .array(fc.array(tie('part'), { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 2 })
    .map((options) => options.map((parts) => parts.join('')).join('|')),
}));

describe('a regex as a format', () => {
  it('reads the texts that RegExp matches whole, and no others', () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '1', 'é', ' '), maxLength: 8 });
    fc.assert(
      fc.property(pattern, fc.array(text, { minLength: 8, maxLength: 8 }), (source, texts) => {
        const machine = machineOf(source);
        const regexp = new RegExp(`^(?:${source})$`, 'u');
        for (const one of texts) expect([one, readsWhole(machine, one)]).toEqual([one, regexp.test(one)]);
      }),
      { numRuns: 300, seed: 7 },
    );
  });

  it('counts large bounds without copying what is counted', () => {
    const program = compileFormat({ kind: 'regex', pattern: '(?:ab|c){2,1000000}' }, null);
    expect(program.kinds.length).toBeLessThan(50);
    const machine = new Machine(program);
    expect(['c', 'cc', 'abc'.repeat(500), 'abca'].map((text) => readsWhole(machine, text))).toEqual([
      false,
      true,
      true,
      false,
    ]);
  });

  it('spells characters in UTF-8, of any length', () => {
    const machine = machineOf('[\\u{80}-\\u{10FFFF}]{2}');
    expect(['éé', '漢🚀', '🚀a', 'a'].map((text) => readsWhole(machine, text))).toEqual([true, true, false, false]);
  });

  it.each([
    '(',
    'a)',
    '[a',
    '(?=a)',
    '(?<!a)b',
    '(a)\\1',
    '\\bword',
    '\\p{L}',
    'a**',
    '*a',
    'a{3,2}',
    'a^b',
    '\\',
    'x'.repeat(5000),
    '('.repeat(100),
  ])('refuses %j', (source) => {
    expect(codeOf(() => machineOf(source))).toBe('UNSUPPORTED_FORMAT');
  });
});
