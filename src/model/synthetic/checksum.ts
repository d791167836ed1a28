/** CRC-32C for the writer of synthetic models: the addon's where it is built, else a table (some 300 MB/s). */
import { MoestroError } from '../../errors.js';
import { loadAddon } from '../../native/binding.js';

export type Crc32c = (crc: number, bytes: Uint8Array) => number;

/** The reflected Castagnoli polynomial. */
const POLYNOMIAL = 0x82f63b78;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; ++bit) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
  return crc >>> 0;
});

/** CRC-32C of `bytes` continued from `crc` (0 to begin), as unsigned 32-bit. */
export function crc32cByTable(crc: number, bytes: Uint8Array): number {
  let state = ~crc;
  for (let i = 0; i < bytes.length; ++i) state = TABLE[(state ^ bytes[i]!) & 0xff]! ^ (state >>> 8);
  return ~state >>> 0;
}

export function chooseCrc32c(): Crc32c {
  try {
    const { crc32c } = loadAddon();
    return (crc, bytes) => crc32c(crc, bytes) >>> 0;
  } catch (error) {
    if (error instanceof MoestroError && error.code === 'ADDON_MISSING') return crc32cByTable;
    throw error;
  }
}
