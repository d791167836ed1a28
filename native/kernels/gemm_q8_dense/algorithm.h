// The algorithm of gemm_q8_dense, for any 16 lanes: which of two paths a call takes. Up to kTokensAtOnce tokens take
// the direct one: a tile is decoded in registers and multiplied at once. More of them take panels (panel.h). Both add
// the same groups in the same order, so they give the same bits.
#pragma once
#include "native/kernels/gemm_q8_dense/panel.h"

namespace moestro {
namespace {

template <int kBits, int kTokens, int kStep>
MOESTRO_INLINE void direct_step(const DenseView& view, const uint8_t* codes, const Token* tokens, size_t column,
                                I32x16* dot) {
  const auto w = decode_step<kBits, kStep>(view, codes);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) dot[t] = dot4_decoded(dot[t], w, tokens[t].q + column + 4 * kStep);
}

// 16 rows from `row` on.
template <int kBits, int kTokens>
inline void direct_block(const DenseView& view, const Token* tokens, int row) {
  F32x16 acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = set1(0.0f);
  const size_t first_tile = static_cast<size_t>(row / kTileRows) * view.groups;
  for (int group = 0; group < view.groups; ++group) {
    const size_t tile = first_tile + group;
    const size_t column = static_cast<size_t>(group) * kGroup;
    const uint8_t* codes = view.codes + tile * kCodeTileBytes<kBits>;
    prefetch_tile<kBits>(view, tile);
    // One or two tokens alone: two sums each, or one addition would wait for the other.
    I32x16 dot[kTokens], other[kTokens];
    I32x16* const odd = kTokens <= 2 ? other : dot;
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      dot[t] = start_dot<kDecodedBias<kBits>>(tokens[t].sum + group);
      other[t] = set1_i32(0);
    }
    direct_step<kBits, kTokens, 0>(view, codes, tokens, column, dot);
    direct_step<kBits, kTokens, 1>(view, codes, tokens, column, odd);
    direct_step<kBits, kTokens, 2>(view, codes, tokens, column, dot);
    direct_step<kBits, kTokens, 3>(view, codes, tokens, column, odd);
    direct_step<kBits, kTokens, 4>(view, codes, tokens, column, dot);
    direct_step<kBits, kTokens, 5>(view, codes, tokens, column, odd);
    direct_step<kBits, kTokens, 6>(view, codes, tokens, column, dot);
    direct_step<kBits, kTokens, 7>(view, codes, tokens, column, odd);
    const F32x16 scales = tile_scales<kBits>(view, tile);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      if constexpr (kTokens <= 2) dot[t] = add_i32(dot[t], other[t]);
      acc[t] = add_group(dot[t], scales, tokens[t].scale[group], acc[t]);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) store(tokens[t].y + row, scale_rows<kBits>(view, row, acc[t]));
}

// One token with kStrips strips of rows side by side: 16 rows of each, `apart` rows from strip to strip. DRAM gives
// four streams a thread faster than one, and the strips' sums do not wait for each other.
template <int kBits>
inline void direct_strips(const DenseView& view, const Token& token, int row, int apart) {
  F32x16 acc[kStrips];
#pragma GCC unroll 8
  for (int r = 0; r < kStrips; ++r) acc[r] = set1(0.0f);
  const size_t first_tile = static_cast<size_t>(row / kTileRows) * view.groups;
  const size_t step = static_cast<size_t>(apart / kTileRows) * view.groups;
  for (int group = 0; group < view.groups; ++group) {
    const size_t column = static_cast<size_t>(group) * kGroup;
#pragma GCC unroll 8
    for (int r = 0; r < kStrips; ++r) {
      const size_t tile = first_tile + group + r * step;
      const uint8_t* codes = view.codes + tile * kCodeTileBytes<kBits>;
      prefetch_strip<kBits>(codes);
      I32x16 dot = start_dot<kDecodedBias<kBits>>(token.sum + group);
      direct_step<kBits, 1, 0>(view, codes, &token, column, &dot);
      direct_step<kBits, 1, 1>(view, codes, &token, column, &dot);
      direct_step<kBits, 1, 2>(view, codes, &token, column, &dot);
      direct_step<kBits, 1, 3>(view, codes, &token, column, &dot);
      direct_step<kBits, 1, 4>(view, codes, &token, column, &dot);
      direct_step<kBits, 1, 5>(view, codes, &token, column, &dot);
      direct_step<kBits, 1, 6>(view, codes, &token, column, &dot);
      direct_step<kBits, 1, 7>(view, codes, &token, column, &dot);
      acc[r] = add_group(dot, tile_scales<kBits>(view, tile), token.scale[group], acc[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kStrips; ++r) {
    const int at = row + r * apart;
    store(token.y + at, scale_rows<kBits>(view, at, acc[r]));
  }
}

// Runs `count` tokens, 1 <= count <= kTokens, through the function made for that count.
template <int kBits, int kTokens>
MOESTRO_INLINE void direct_block_of(int count, const DenseView& view, const Token* tokens, int row) {
  if constexpr (kTokens == 1) {
    direct_block<kBits, 1>(view, tokens, row);
  } else if (count == kTokens) {
    direct_block<kBits, kTokens>(view, tokens, row);
  } else {
    direct_block_of<kBits, kTokens - 1>(count, view, tokens, row);
  }
}

template <int kBits>
inline void gemm_bits(const DenseMatrix& w, const Q8Activations& x, int tokens, int row_begin, int row_end, float* y,
                      size_t y_stride) {
  if (tokens <= 0) return;
  const DenseView view = view_dense(w);
  if (tokens > kTokensAtOnce) return panels<kBits>(view, x, tokens, row_begin, row_end, y, y_stride);
  Token block[kTokensAtOnce];
  for (int t = 0; t < tokens; ++t) block[t] = token_at(x, nullptr, t, y, y_stride);
  int row = row_begin;
  if (tokens == 1) {
    const int apart = (row_end - row_begin) / kTileRows / kStrips * kTileRows;
    for (; row < row_begin + apart; row += kTileRows) direct_strips<kBits>(view, block[0], row, apart);
    row = row_begin + kStrips * apart;
  }
  for (; row < row_end; row += kTileRows) {
    direct_block_of<kBits, kTokensAtOnce>(tokens, view, block, row);
  }
}

inline void gemm_dense(const DenseMatrix& w, const Q8Activations& x, int tokens, int row_begin, int row_end, float* y,
                       size_t y_stride) {
  switch (w.bits) {
    case 4:
      return gemm_bits<4>(w, x, tokens, row_begin, row_end, y, y_stride);
    case 6:
      return gemm_bits<6>(w, x, tokens, row_begin, row_end, y, y_stride);
    case 8:
      return gemm_bits<8>(w, x, tokens, row_begin, row_end, y, y_stride);
  }
}

}  // namespace
}  // namespace moestro
