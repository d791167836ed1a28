/**
 * The header of a stored KV block: 128 bytes, the block's tokens as int32, and 4 bytes that check both. After it come keys and
 * values and another checksum (native/io/record_file.h). All numbers are little-endian.
 *
 *   0  "MOESTROK"      8  u32 version, u32 block tokens, u32 tokens, u32 depth      24  u64 bytes of keys and values
 *  32  model key      48  key      64  parent's key, 16 bytes each                  80  zeros to 128
 */
import { blockKey } from './prefix-index.js';

const MAGIC = 'MOESTROK';
const VERSION = 1;
const FIXED_BYTES = 128;
const KEY_BYTES = 16;

export interface RecordShape {
  /** Of the model and all that its keys and values depend on, 32 hex digits. */
  readonly modelKey: string;
  readonly blockTokens: number;
  readonly kvBytes: number;
}

export interface RecordHeader {
  readonly key: string;
  readonly parentKey: string;
  readonly depth: number;
  readonly tokens: readonly number[];
}

export type Crc32c = (crc: number, bytes: Uint8Array) => number;

export const headerBytes = ({ blockTokens }: RecordShape): number => FIXED_BYTES + 4 * blockTokens + 4;
export const recordBytes = (shape: RecordShape): number => headerBytes(shape) + shape.kvBytes + 4;

export function encodeHeader(header: RecordHeader, shape: RecordShape, crc32c: Crc32c): Uint8Array {
  const bytes = Buffer.alloc(headerBytes(shape));
  bytes.write(MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(shape.blockTokens, 12);
  bytes.writeUInt32LE(header.tokens.length, 16);
  bytes.writeUInt32LE(header.depth, 20);
  bytes.writeBigUInt64LE(BigInt(shape.kvBytes), 24);
  bytes.write(shape.modelKey, 32, 'hex');
  bytes.write(header.key, 48, 'hex');
  bytes.write(header.parentKey, 64, 'hex');
  for (const [i, token] of header.tokens.entries()) bytes.writeInt32LE(token, FIXED_BYTES + 4 * i);
  const end = bytes.length - 4;
  bytes.writeUInt32LE(crc32c(0, bytes.subarray(0, end)), end);
  return bytes;
}

/**
 * @param bytes the first `headerBytes` of a file of `fileBytes`.
 * @returns the header, or in words why this is no record of this model.
 */
export function decodeHeader(
  bytes: Buffer,
  fileBytes: number,
  shape: RecordShape,
  crc32c: Crc32c,
): RecordHeader | string {
  const end = headerBytes(shape) - 4;
  if (bytes.length < FIXED_BYTES || bytes.toString('latin1', 0, 8) !== MAGIC) return 'it is no stored prefix';
  const version = bytes.readUInt32LE(8);
  if (version !== VERSION) return `it is of version ${version}, needed ${VERSION}`;
  const hex = (at: number): string => bytes.toString('hex', at, at + KEY_BYTES);
  if (hex(32) !== shape.modelKey) return 'it is of another model, another build or other settings';
  if (fileBytes !== recordBytes(shape)) return `it has ${fileBytes} bytes, needed ${recordBytes(shape)}`;
  if (bytes.length < end + 4 || bytes.readUInt32LE(end) !== crc32c(0, bytes.subarray(0, end)))
    return 'the checksum of its header does not match';
  const count = bytes.readUInt32LE(16);
  if (bytes.readUInt32LE(12) !== shape.blockTokens || count < 1 || count > shape.blockTokens)
    return `it holds ${count} tokens in blocks of ${bytes.readUInt32LE(12)}`;
  const tokens = Array.from({ length: count }, (_, i) => bytes.readInt32LE(FIXED_BYTES + 4 * i));
  const header = { key: hex(48), parentKey: hex(64), depth: bytes.readUInt32LE(20), tokens };
  return blockKey(header.parentKey, tokens) === header.key ? header : 'its key is not that of its tokens';
}
