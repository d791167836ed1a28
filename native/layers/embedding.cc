// Token ids to the residual stream: rows of the embedding matrix, read out of its tiles.
#include <algorithm>
#include <bit>
#include <cmath>

#include "native/layers/model.h"

namespace moestro {
namespace {

// Weight at column `c` of row `lane` of a tile, in units of its scale. Formats: kernels/formats.h.
int tile_value(const uint8_t* tile, int bits, size_t lane, size_t c) {
  const size_t step = c / 4, byte = lane * 4 + c % 4;
  if (bits == 8) return tile[step * 64 + byte] - 128;
  const int low = tile[step / 2 * 64 + byte] >> (step % 2 * 4) & 15;
  if (bits == 4) return kDenseTable[low];
  return (low | (tile[(4 + step / 4) * 64 + byte] >> (step % 4 * 2) & 3) << 4) - 32;
}

// Scales of the tile's 16 rows, whose first row is `row`.
void tile_scales(const Kernels& kernels, const DenseMatrix& w, size_t tile, size_t row, float* scales) {
  if (w.bits != 4) {
    kernels.f16_to_f32(w.scales + tile * kTileRows, kTileRows, scales);
    return;
  }
  for (int i = 0; i < kTileRows; ++i) {
    const int g = w.group_scales[tile * kScaleTileBytes + i];
    const float size = std::ldexp(1.0f + static_cast<float>(g & 15) / 16.0f, (g >> 4 & 7) - 7);
    const float row_scale = std::bit_cast<float>(static_cast<uint32_t>(w.row_scales[row + i]) << 16);
    scales[i] = row_scale * (g & 128 ? -size : size);
  }
}

}  // namespace

void Model::embed() {
  const size_t hidden = dims_.hidden;
  const size_t groups = hidden / kGroup;
  pool_->for_each(tokens_, std::max(1, tokens_ / (pool_->threads() * 4)), [&](int begin, int end, int) {
    for (int t = begin; t < end; ++t) {
      const size_t row = ids_[t], lane = row % kTileRows;
      float* x = s_.x + t * hidden;
      for (size_t g = 0; g < groups; ++g) {
        const size_t tile = (row / kTileRows) * groups + g;
        alignas(64) float scales[kTileRows];
        tile_scales(*kernels_, embedding_, tile, row - lane, scales);
        const uint8_t* codes = embedding_.codes + tile * embedding_.bits * kBitTileBytes;
        for (int c = 0; c < kGroup; ++c)
          x[g * kGroup + c] = scales[lane] * static_cast<float>(tile_value(codes, embedding_.bits, lane, c));
      }
    }
  });
}

}  // namespace moestro
