import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { loadAddon, type SourceDtype } from '../../src/native/binding.js';
import { GGML_BLOCKS } from '../helpers/ggml-blocks.js';
import { encodeValues, fromHalf } from '../helpers/number-formats.js';
import { gaussian } from '../helpers/tiny-models.js';

const addon = loadAddon();
const golden = JSON.parse(readFileSync(new URL('../golden/ggml-blocks.json', import.meta.url), 'utf8')) as Readonly<
  Record<string, { readonly bytes: string; readonly values: string }>
>;

/** Whole numbers in [0, limit) by Park and Miller's generator. */
function drawer(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state * 48271) % 2147483647;
    return state % limit;
  };
}

describe('dequantise()', () => {
  it.each(Object.keys(GGML_BLOCKS))('decodes %s as its definition says when codes are drawn', (dtype) => {
    const draw = drawer(7);
    for (let trial = 0; trial < 50; trial++) {
      const { bytes, values } = GGML_BLOCKS[dtype]!(draw);
      const out = new Float32Array(values.length);
      addon.dequantise(dtype as SourceDtype, bytes, values.length, out);
      const magnitude = Math.max(...values.map(Math.abs));
      values.forEach((value, i) => {
        expect(Math.abs(out[i]! - value), `trial ${trial}, element ${i}`).toBeLessThanOrEqual(magnitude * 2 ** -22);
      });
    }
  });

  // Random blocks and what the dequantisers of llama.cpp's gguf-py (MIT) make of them.
  it.each(Object.keys(GGML_BLOCKS))('agrees with gguf-py on %s when blocks are random bytes', (dtype) => {
    const { bytes, values } = golden[dtype]!;
    const needed = new Float32Array(new Uint8Array(Buffer.from(values, 'hex')).buffer);
    const out = new Float32Array(needed.length);
    addon.dequantise(dtype as SourceDtype, Buffer.from(bytes, 'hex'), needed.length, out);
    expect(out).toEqual(needed);
  });

  it('decodes every finite half exactly', () => {
    const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const out = new Float32Array(65536);
    addon.dequantise('F16', new Uint8Array(halves.buffer), 65536, out);
    for (let i = 0; i < 65536; i++) {
      const needed = fromHalf(i);
      if (Number.isNaN(needed)) expect(out[i]).toBeNaN();
      else expect(out[i]).toBe(needed);
    }
  });

  it('decodes F32 and BF16 exactly when the bytes are not aligned', () => {
    const random = gaussian(3);
    const values = Float32Array.from({ length: 33 }, random);
    for (const dtype of ['F32', 'BF16'] as const) {
      const encoded = encodeValues(dtype, values);
      const shifted = new Uint8Array(encoded.length + 1);
      shifted.set(encoded, 1);
      const out = new Float32Array(33);
      addon.dequantise(dtype, shifted.subarray(1), 33, out);
      const needed = dtype === 'F32' ? values : values.map(bfloat);
      expect([...out]).toEqual([...needed]);
    }
  });

  it.each([
    ['Q4_0', 18, 64, 'one block for two'],
    ['Q4_0', 18, 31, 'part of a block'],
    ['Q6_K', 209, 256, 'a block cut short'],
    ['F32', 7, 2, 'a value cut short'],
    ['F16', 4, 1, 'a value too many'],
  ] as const)(
    'throws INVALID_ARGUMENT for %s in %i bytes when %i weights are asked for: %s',
    (dtype, bytes, count, _why) => {
      const work = () => addon.dequantise(dtype, new Uint8Array(bytes), count, new Float32Array(count));
      expect(work).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    },
  );

  it('throws UNSUPPORTED_DTYPE when the dtype is unknown', () => {
    const work = () => addon.dequantise('IQ4_NL' as SourceDtype, new Uint8Array(18), 32, new Float32Array(32));
    expect(work).toThrow(expect.objectContaining({ code: 'UNSUPPORTED_DTYPE' }));
  });
});

/** The nearest bfloat16, half to even, as a number. */
function bfloat(value: number): number {
  const bits = new Uint16Array(encodeValues('BF16', new Float32Array([value])).buffer)[0]!;
  return new Float32Array(new Uint32Array([bits << 16]).buffer)[0]!;
}
