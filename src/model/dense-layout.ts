/** How does a dense tensor lie in dense.safetensors? Kind by its name, bytes by its shape. */
import type { DenseTensorEntry } from './manifest.js';

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
