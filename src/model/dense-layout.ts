/** How does a dense tensor lie in dense.safetensors? Kind by its name and the bits asked for, bytes by its shape. */
import type { DenseTensorEntry } from './manifest.js';

/** Where tensors begin in dense.safetensors is a multiple of this, so that large direct reads start aligned. */
const DATA_ALIGNMENT = 4096;
const TILE_ROWS = 16;
const TILE_WEIGHTS = 512;

/** Bits of a dense matrix, scales aside; what the kinds of native/kernels/formats.h are named after. */
export type DenseBits = 4 | 6 | 8;
export type DenseKind = DenseTensorEntry['kind'];

/** Norms, biases and routers stay float32; whatever else there is, is a matrix. */
export const isDenseMatrix = (name: string): boolean => !/(^|[._])(norm|bias|router)$/.test(name);

/**
 * The kind in which a tensor is written. At 4 bits the embedding and the head take 6: every token's distribution comes
 * straight out of the head, and rows of an embedding differ more within a group than other weights do.
 */
export function denseTensorKind(name: string, bits: DenseBits): DenseKind {
  if (!isDenseMatrix(name)) return 'f32';
  if (bits === 4 && (name === 'embedding' || name === 'head')) return 'q6';
  return `q${bits}`;
}

/** Parts of a tensor in their order: codes, scales and row scales of a matrix, or the values of a float32 tensor. */
export function denseTensorParts(kind: DenseKind, rows: number, cols: number): readonly number[] {
  if (kind === 'f32') return [rows * cols * 4];
  const paddedRows = Math.ceil(rows / TILE_ROWS) * TILE_ROWS;
  const tiles = (paddedRows * cols) / TILE_WEIGHTS;
  if (kind === 'q4') return [tiles * 256, tiles * TILE_ROWS, paddedRows * 2];
  return [tiles * (kind === 'q6' ? 384 : 512), tiles * 2 * TILE_ROWS];
}

/** Bytes of a tensor in the file; rows of a matrix are padded to whole tiles. */
export function denseTensorBytes(kind: DenseKind, rows: number, cols: number): number {
  return denseTensorParts(kind, rows, cols).reduce((sum, bytes) => sum + bytes, 0);
}

/** Where everything lies in one dense.safetensors. */
export interface DenseLayout {
  readonly header: Uint8Array;
  readonly places: ReadonlyMap<string, Omit<DenseTensorEntry, 'crc32c'>>;
  readonly fileBytes: number;
}

/** The header of dense.safetensors and the place of every tensor: matrices as U8 blocks, the rest as F32. */
export function denseLayout(
  dense: ReadonlyMap<string, readonly [rows: number, cols: number]>,
  bits: DenseBits,
): DenseLayout {
  const entries: Record<string, unknown> = { __metadata__: { format: 'moestro' } };
  const relative = new Map<string, Omit<DenseTensorEntry, 'crc32c'>>();
  let end = 0;
  for (const [name, [rows, cols]] of dense) {
    const kind = denseTensorKind(name, bits);
    const bytes = denseTensorBytes(kind, rows, cols);
    entries[name] = {
      dtype: kind === 'f32' ? 'F32' : 'U8',
      shape: kind === 'f32' ? [rows, cols] : [bytes],
      data_offsets: [end, end + bytes],
    };
    relative.set(name, { kind, rows, cols, offset: end, bytes });
    end += bytes;
  }
  const json = Buffer.from(JSON.stringify(entries));
  // Spaces after the JSON are part of the header's length, as the format allows.
  const dataStart = Math.ceil((8 + json.length) / DATA_ALIGNMENT) * DATA_ALIGNMENT;
  const header = Buffer.alloc(dataStart, ' ');
  header.writeBigUInt64LE(BigInt(dataStart - 8), 0);
  json.copy(header, 8);
  const places = new Map([...relative].map(([name, place]) => [name, { ...place, offset: dataStart + place.offset }]));
  return { header, places, fileBytes: dataStart + end };
}
