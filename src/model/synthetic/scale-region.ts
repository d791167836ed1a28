/** The scales of a random expert: see native/kernels/formats.h for the bytes. */
import { randomWords } from './random-pool.js';

const TILE_WEIGHTS = 512;
const SCALE_TILE_BYTES = 16;
/** Root mean square of the 16-entry table under even codes, times that of the group scales below. */
const UNIT = 65.7 * 0.59;

/**
 * The scale region of one record: group scales between 1/4 and 1 with random signs, and row scales that give a matrix of
 * `cols` columns weights of variance 1 / cols. Deviates from that by tens of percent, which is as good for the purpose.
 */
export function scaleRegion(hiddenSize: number, expertSize: number, bytes: number, seed: number): Uint8Array {
  const region = new Uint8Array(bytes);
  const next = randomWords(seed);
  const groupBytes = ((3 * hiddenSize * expertSize) / TILE_WEIGHTS) * SCALE_TILE_BYTES;
  // E3M4: sign, exponent 5 or 6 (2^-2 or 2^-1), any mantissa.
  for (let i = 0; i < groupBytes; ++i) {
    const word = next() >>> 8;
    region[i] = (word & 0x8f) | ((word & 0x100) === 0 ? 0x50 : 0x60);
  }
  const view = new DataView(region.buffer);
  const matrices = [
    { rows: expertSize, cols: hiddenSize },
    { rows: expertSize, cols: hiddenSize },
    { rows: hiddenSize, cols: expertSize },
  ];
  let at = groupBytes;
  for (const { rows, cols } of matrices) {
    const rowScale = toBF16(1 / (Math.sqrt(cols) * UNIT));
    for (let row = 0; row < rows; ++row, at += 2) view.setUint16(at, rowScale, true);
  }
  return region;
}

/** The bfloat16 at or below a positive number in magnitude. */
function toBF16(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  return view.getUint16(0);
}
