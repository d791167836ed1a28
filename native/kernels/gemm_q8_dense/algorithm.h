// The algorithm of gemm_q8_dense, for any 16 lanes: 16 rows at a time against up to kTokensAtOnce tokens. The rows of a
// block (16 x cols bytes) stay in the first or second level cache while all tokens pass.
#pragma once
#include "native/kernels/simd/q8_tiles.h"

namespace moestro {
namespace {

template <int kTokens>
inline void dense_block(const Tiles<uint16_t>& tiles, bool is_cold, const Token* tokens, int row) {
  F32x16 acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = set1(0.0f);
  multiply_tiles<kTokens>(tiles, 0, is_cold, tokens, acc);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) store(tokens[t].y + row, acc[t]);
}

// Runs `count` tokens, 1 <= count <= kTokens, through the function made for that count.
template <int kTokens>
MOESTRO_INLINE void dense_block_of(int count, const Tiles<uint16_t>& tiles, bool is_cold, const Token* tokens,
                                   int row) {
  if constexpr (kTokens == 1) {
    dense_block<1>(tiles, is_cold, tokens, row);
  } else if (count == kTokens) {
    dense_block<kTokens>(tiles, is_cold, tokens, row);
  } else {
    dense_block_of<kTokens - 1>(count, tiles, is_cold, tokens, row);
  }
}

inline void gemm_dense(const DenseMatrix& w, const Q8Activations& x, int tokens, int row_begin, int row_end, float* y,
                       size_t y_stride) {
  const int groups = w.cols / kGroup;
  for (int row = row_begin; row < row_end; row += kTileRows) {
    const size_t tile = static_cast<size_t>(row / kTileRows) * groups;
    const Tiles<uint16_t> tiles = {w.codes + tile * kTileWeights, w.scales + tile * kTileRows, groups};
    for (int first = 0; first < tokens; first += kTokensAtOnce) {
      const int count = tokens - first < kTokensAtOnce ? tokens - first : kTokensAtOnce;
      Token block[kTokensAtOnce];
      for (int t = 0; t < count; ++t) block[t] = token_at(x, nullptr, first + t, y, y_stride);
      dense_block_of<kTokensAtOnce>(count, tiles, first == 0, block, row);
    }
  }
}

}  // namespace
}  // namespace moestro
