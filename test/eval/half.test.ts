import { describe, expect, it } from 'vitest';
import { decodeBF16, decodeF16, decodeF32, halfToNumber, numberToHalf } from '../../src/eval/half.js';

describe('halfToNumber()', () => {
  it.each([
    [0x0000, 0],
    [0x0001, 2 ** -24],
    [0x03ff, 1023 * 2 ** -24],
    [0x0400, 2 ** -14],
    [0x3c00, 1],
    [0xc000, -2],
    [0x7bff, 65504],
    [0x7c00, Number.POSITIVE_INFINITY],
  ])('halfToNumber() reads bits %i as IEEE 754 says', (bits, value) => {
    expect(halfToNumber(bits)).toBe(value);
  });

  it('numberToHalf() returns the same bits for every finite half', () => {
    for (let bits = 0; bits < 65536; ++bits) {
      const value = halfToNumber(bits);
      if (!Number.isNaN(value)) expect(numberToHalf(value)).toBe(bits);
    }
  });

  it('numberToHalf() rounds ties to even when between two halves', () => {
    expect(numberToHalf(1 + 2 ** -11)).toBe(0x3c00);
    expect(numberToHalf(1 + 3 * 2 ** -11)).toBe(0x3c02);
    expect(numberToHalf(65519)).toBe(0x7bff);
    expect(numberToHalf(65520)).toBe(0x7c00);
  });
});

describe('decoding', () => {
  it('decodeF16(), decodeBF16() and decodeF32() read little-endian bytes at odd addresses', () => {
    const out = new Float32Array(2);
    const at = (...bytes: number[]) => Uint8Array.from([0, ...bytes]).subarray(1);
    decodeF16(at(0x00, 0x3c, 0x00, 0xc0), out);
    expect([...out]).toEqual([1, -2]);
    decodeBF16(at(0x80, 0x3f, 0x00, 0xc0), out);
    expect([...out]).toEqual([1, -2]);
    decodeF32(at(0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0), out);
    expect([...out]).toEqual([1, -2]);
  });
});
