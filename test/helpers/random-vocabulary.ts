/**
 * A vocabulary like those of real models, from a seed: all bytes, then merges of shorter tokens with the lengths and the kinds
 * that byte-level BPE of text and code ends up with.
 */
import { Random } from '../../src/engine/random.js';
import type { TokenBytes } from '../../src/constrain/program.js';

const LETTERS = 'eeeeeetttttaaaaaooooiiiinnnnsssshhhhrrrrddlllcuumwfgypbvkjxqz';
const MARKS = [
  '":',
  '","',
  '": "',
  '{"',
  '"}',
  '"},',
  '[{',
  '}]',
  '"]',
  '\\"',
  '\\n',
  ' {',
  ' [',
  '",',
  '":"',
  '\n\n',
  ');',
  '()',
  '//',
  '->',
  ' =',
  '==',
  '>>',
  '</',
  '_',
  '.',
  ',',
  ' "',
];
const FOREIGN = [
  [0x4e00, 0x9fa5],
  [0x0430, 0x044f],
  [0x3041, 0x3096],
  [0xac00, 0xd7a3],
  [0x0627, 0x064a],
  [0x1f300, 0x1f5ff],
  [0xe0, 0xff],
] as const;

/** @param size tokens; the last is special and has no bytes: it ends a text. */
export function randomVocabulary(size: number, seed: number): TokenBytes {
  const random = new Random(seed);
  const below = (count: number): number => Math.floor(random.next() * count);
  const pick = <T>(list: ArrayLike<T>): T => list[below(list.length)]!;
  const letters = (least: number, most: number): string =>
    Array.from({ length: least + below(most - least + 1) }, () => pick(LETTERS)).join('');
  const foreign = (count: number): string =>
    Array.from({ length: count }, () => {
      const [first, last] = pick(FOREIGN);
      return String.fromCodePoint(first + below(last - first + 1));
    }).join('');
  const kinds: readonly (() => string)[] = [
    () => ` ${letters(1, 10)}`,
    () => ` ${letters(3, 8)}`,
    () => letters(2, 8),
    () => ` ${letters(1, 1).toUpperCase()}${letters(2, 9)}`,
    () => letters(2, 5).toUpperCase(),
    () => `${letters(1, 1).toUpperCase()}${letters(2, 6)}${letters(1, 1).toUpperCase()}${letters(2, 6)}`,
    () => `_${letters(2, 7)}`,
    () => `.${letters(2, 7)}`,
    () => pick(MARKS) + (below(2) === 0 ? letters(1, 5) : pick(MARKS)),
    () => String(below(1000)),
    () => (below(2) === 0 ? ' ' : '\t').repeat(1 + below(90)),
    () => `\n${' '.repeat(below(32))}`,
    () => foreign(1 + below(3)),
    () => foreign(1 + below(4)),
  ];
  const encoder = new TextEncoder();
  const known = new Set<string>();
  const tokens: Uint8Array[] = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  for (let byte = 0; byte < 256; ++byte) known.add(String.fromCharCode(byte));
  const add = (bytes: Uint8Array): void => {
    const key = String.fromCharCode(...bytes);
    if (known.has(key)) return;
    known.add(key);
    tokens.push(bytes);
  };
  for (const mark of MARKS) add(encoder.encode(mark));
  while (tokens.length < size - 1) add(encoder.encode(pick(kinds)()));
  tokens.push(new Uint8Array(0));
  const offsets = new Uint32Array(tokens.length + 1);
  for (const [id, token] of tokens.entries()) offsets[id + 1] = offsets[id]! + token.length;
  const bytes = new Uint8Array(offsets[tokens.length]!);
  for (const [id, token] of tokens.entries()) bytes.set(token, offsets[id]!);
  return { bytes, offsets };
}
