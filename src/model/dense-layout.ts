/** How does a dense tensor lie in dense.safetensors? Kind by its name, bytes by its shape. */
import type { DenseTensorEntry } from './manifest.js';

/** Where tensors begin in dense.safetensors is a multiple of this, so that large direct reads start aligned. */
const DATA_ALIGNMENT = 4096;
const TILE_ROWS = 16;
const TILE_WEIGHTS = 512;
const TILE_BYTES = TILE_WEIGHTS + 2 * TILE_ROWS;

/** Norms, biases and routers stay float32; matrices take the 8-bit block format of native/kernels/formats.h. */
export function denseTensorKind(name: string): DenseTensorEntry['kind'] {
  return /(^|[._])(norm|bias|router)$/.test(name) ? 'f32' : 'q8';
}

/** Bytes of a tensor in the file; rows of a q8 matrix are padded to whole tiles. */
export function denseTensorBytes(kind: DenseTensorEntry['kind'], rows: number, cols: number): number {
  if (kind === 'f32') return rows * cols * 4;
  return (Math.ceil(rows / TILE_ROWS) * TILE_ROWS * cols * TILE_BYTES) / TILE_WEIGHTS;
}

/** Where everything lies in one dense.safetensors. */
export interface DenseLayout {
  readonly header: Uint8Array;
  readonly places: ReadonlyMap<string, Omit<DenseTensorEntry, 'crc32c'>>;
  readonly fileBytes: number;
}

/** The header of dense.safetensors and the place of every tensor: matrices as U8 blocks, the rest as F32. */
export function denseLayout(dense: ReadonlyMap<string, readonly [rows: number, cols: number]>): DenseLayout {
  const entries: Record<string, unknown> = { __metadata__: { format: 'moestro' } };
  const relative = new Map<string, Omit<DenseTensorEntry, 'crc32c'>>();
  let end = 0;
  for (const [name, [rows, cols]] of dense) {
    const kind = denseTensorKind(name);
    const bytes = denseTensorBytes(kind, rows, cols);
    entries[name] = {
      dtype: kind === 'q8' ? 'U8' : 'F32',
      shape: kind === 'q8' ? [bytes] : [rows, cols],
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
