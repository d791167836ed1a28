/** Where the planes of an expert's record lie. The bytes themselves: native/kernels/formats.h. */
import type { PlaneGeometry } from './manifest.js';

const PAGE = 4096;
const TILE_WEIGHTS = 512;
const BIT_TILE_BYTES = 64;
const SCALE_TILE_BYTES = 16;

const pages = (bytes: number): number => Math.ceil(bytes / PAGE) * PAGE;

/**
 * Geometry of every record of a model whose experts are [expertSize, hiddenSize] gate and up and the transposed down.
 *
 * @param bitsStored 4 for levels 2-4, 8 for level 8 too.
 */
export function planeGeometry(hiddenSize: number, expertSize: number, bitsStored: 4 | 8): PlaneGeometry {
  const tiles = (3 * hiddenSize * expertSize) / TILE_WEIGHTS;
  const scaleBytes = pages(tiles * SCALE_TILE_BYTES + 2 * (2 * expertSize + hiddenSize));
  const bitBytes = pages(tiles * BIT_TILE_BYTES);
  const planes = (bitsStored === 8 ? [2, 1, 1, 4] : [2, 1, 1]).map((bits, index, all) => {
    const bitsBefore = all.slice(0, index).reduce((sum, value) => sum + value, 0);
    const withScales = index === 0 ? scaleBytes : 0;
    return { bits, offset: index === 0 ? 0 : scaleBytes + bitsBefore * bitBytes, bytes: withScales + bits * bitBytes };
  });
  return { scaleBytes, bitBytes, bitsStored, recordBytes: scaleBytes + bitsStored * bitBytes, planes };
}
