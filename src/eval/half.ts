/** Sixteen-bit floats to and from float32, in plain TypeScript: what the reference path reads weights with. */

/** One IEEE 754 binary16 as a number. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** The nearest binary16, ties to even; too large becomes infinity. */
export function numberToHalf(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  // One unit in the last place of the binade; the smallest normal binade also serves the subnormal numbers.
  const exponent = magnitude < 2 ** -14 ? -14 : Math.floor(Math.log2(magnitude));
  const unit = 2 ** (exponent - 10);
  const scaled = magnitude / unit;
  const floor = Math.floor(scaled);
  const rest = scaled - floor;
  const units = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
  // units is below 1024 for subnormal numbers and 1024..2048 otherwise, so adding carries into the exponent.
  return sign | (units + (exponent + 14) * 1024);
}

let halfTable: Float32Array | undefined;

/** binary16 little-endian bytes to float32; `out.length` values. */
export function decodeF16(bytes: Uint8Array, out: Float32Array): void {
  if (halfTable === undefined) {
    halfTable = new Float32Array(65536);
    for (let i = 0; i < 65536; ++i) halfTable[i] = halfToNumber(i);
  }
  for (let i = 0; i < out.length; ++i) out[i] = halfTable[bytes[2 * i]! | (bytes[2 * i + 1]! << 8)]!;
}

/** bfloat16 little-endian bytes to float32; `out.length` values. */
export function decodeBF16(bytes: Uint8Array, out: Float32Array): void {
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < out.length; ++i) bits[i] = ((bytes[2 * i]! | (bytes[2 * i + 1]! << 8)) << 16) >>> 0;
}

/** float32 little-endian bytes, at any alignment, to float32; `out.length` values. */
export function decodeF32(bytes: Uint8Array, out: Float32Array): void {
  const view = new Uint8Array(out.buffer, out.byteOffset, out.length * 4);
  view.set(bytes.subarray(0, view.length));
}
