/** Float32 values to the bytes of the formats that model files use. Written for tests: plain, not fast. */

const float = new Float32Array(1);
const floatBits = new Uint32Array(float.buffer);

/** Nearest half with ties to even; values beyond the range become infinity. */
export function toHalf(value: number): number {
  float[0] = value;
  const bits = floatBits[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const size = Math.abs(value);
  if (Number.isNaN(size)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  // Subnormal halves are multiples of 2^-24.
  if (size < 2 ** -14) return sign | roundHalfEven(size * 2 ** 24);
  // Drop 13 bits of the mantissa; a carry runs into the exponent, as it should. 112 is the difference of the biases.
  const kept = bits & 0x7fffffff;
  return sign | (((kept + 0xfff + ((kept >>> 13) & 1)) >>> 13) - (112 << 10));
}

export function fromHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const mantissa = half & 1023;
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15));
}

export function toBfloat(value: number): number {
  float[0] = value;
  const bits = floatBits[0]!;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

export type PlainDtype = 'F32' | 'F16' | 'BF16';
export type WritableDtype = PlainDtype | 'Q8_0' | 'Q4_0';

/** Row-major values to bytes; the length of a row must be a whole number of blocks. */
export function encodeValues(dtype: WritableDtype, values: Float32Array): Uint8Array {
  switch (dtype) {
    case 'F32':
      return new Uint8Array(values.slice().buffer);
    case 'F16':
      return new Uint8Array(Uint16Array.from(values, toHalf).buffer);
    case 'BF16':
      return new Uint8Array(Uint16Array.from(values, toBfloat).buffer);
    case 'Q8_0':
      return encodeBlocks(values, 34, (block, out) => {
        const scale = Math.max(...block.map(Math.abs)) / 127;
        new DataView(out.buffer, out.byteOffset).setUint16(0, toHalf(scale), true);
        for (const [i, value] of block.entries()) out[2 + i] = scale === 0 ? 0 : Math.round(value / scale) & 0xff;
      });
    case 'Q4_0':
      return encodeBlocks(values, 18, (block, out) => {
        // The value of largest size, with its sign, sits at code 0, which stands for -8.
        const extreme = block.reduce((best, value) => (Math.abs(value) > Math.abs(best) ? value : best), 0);
        const scale = extreme / -8;
        new DataView(out.buffer, out.byteOffset).setUint16(0, toHalf(scale), true);
        const code = (value: number) => (scale === 0 ? 8 : Math.min(15, Math.max(0, Math.round(value / scale) + 8)));
        for (let i = 0; i < 16; i++) out[2 + i] = code(block[i]!) | (code(block[i + 16]!) << 4);
      });
  }
}

function encodeBlocks(
  values: Float32Array,
  blockBytes: number,
  encode: (block: Float32Array, out: Uint8Array) => void,
): Uint8Array {
  const blocks = values.length / 32;
  const bytes = new Uint8Array(blocks * blockBytes);
  for (let b = 0; b < blocks; b++) {
    encode(values.subarray(b * 32, (b + 1) * 32), bytes.subarray(b * blockBytes, (b + 1) * blockBytes));
  }
  return bytes;
}
