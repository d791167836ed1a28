// The algorithm of gemm_q8_dense, for any 16 lanes: which of two paths a call takes, and the two.
//
//   direct  few tokens, or 8 bits: a tile is decoded in registers and multiplied with up to kTokensAtOnce tokens
//   panel   4 and 6 bits with more tokens: 16 rows x 1024 columns are decoded into bytes that stay in the first level
//           cache, then all tokens pass; their partial sums wait in y between panels
// Both add the same groups in the same order, so they give the same bits.
#pragma once
#include "native/kernels/gemm_q8_dense/decode.h"

namespace moestro {
namespace {

template <int kBits, int kTokens, int kStep>
MOESTRO_INLINE void direct_step(const DenseView& view, const uint8_t* codes, const Token* tokens, size_t column,
                                I32x16* dot) {
  const auto w = decode_step<kBits, kStep>(view, codes);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) dot[t] = dot4_decoded(dot[t], w, tokens[t].q + column + 4 * kStep);
}

// 16 rows from `row` on. `is_cold`: the tiles come from DRAM, so lines are asked for ahead of their use.
template <int kBits, int kTokens>
inline void direct_block(const DenseView& view, bool is_cold, const Token* tokens, int row) {
  F32x16 acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = set1(0.0f);
  const size_t first_tile = static_cast<size_t>(row / kTileRows) * view.groups;
  for (int group = 0; group < view.groups; ++group) {
    const size_t tile = first_tile + group;
    const size_t column = static_cast<size_t>(group) * kGroup;
    const uint8_t* codes = view.codes + tile * kCodeTileBytes<kBits>;
    if (is_cold) prefetch_tile<kBits>(view, tile);
    I32x16 dot[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) dot[t] = set1_i32(-kDecodedBias<kBits> * tokens[t].sum[group]);
    direct_step<kBits, kTokens, 0>(view, codes, tokens, column, dot);
    direct_step<kBits, kTokens, 1>(view, codes, tokens, column, dot);
    direct_step<kBits, kTokens, 2>(view, codes, tokens, column, dot);
    direct_step<kBits, kTokens, 3>(view, codes, tokens, column, dot);
    direct_step<kBits, kTokens, 4>(view, codes, tokens, column, dot);
    direct_step<kBits, kTokens, 5>(view, codes, tokens, column, dot);
    direct_step<kBits, kTokens, 6>(view, codes, tokens, column, dot);
    direct_step<kBits, kTokens, 7>(view, codes, tokens, column, dot);
    const F32x16 scales = tile_scales<kBits>(view, tile);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) acc[t] = add_group(dot[t], scales, tokens[t].scale[group], acc[t]);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) store(tokens[t].y + row, scale_rows<kBits>(view, row, acc[t]));
}

// Runs `count` tokens, 1 <= count <= kTokens, through the function made for that count.
template <int kBits, int kTokens>
MOESTRO_INLINE void direct_block_of(int count, const DenseView& view, bool is_cold, const Token* tokens, int row) {
  if constexpr (kTokens == 1) {
    direct_block<kBits, 1>(view, is_cold, tokens, row);
  } else if (count == kTokens) {
    direct_block<kBits, kTokens>(view, is_cold, tokens, row);
  } else {
    direct_block_of<kBits, kTokens - 1>(count, view, is_cold, tokens, row);
  }
}

// 16 rows of decoded weights: 16 KiB of codes and 2 KiB of scales.
constexpr int kPanelGroups = 32;
struct Panel {
  alignas(64) uint8_t codes[kPanelGroups * kTileWeights];
  alignas(64) float scales[kPanelGroups * kTileRows];
};

template <int kBits>
inline void fill_panel(const DenseView& view, size_t first_tile, int groups, Panel* panel) {
  for (int g = 0; g < groups; ++g) {
    const size_t tile = first_tile + g;
    const uint8_t* codes = view.codes + tile * kCodeTileBytes<kBits>;
    uint8_t* out = panel->codes + static_cast<size_t>(g) * kTileWeights;
    prefetch_tile<kBits>(view, tile);
    store_decoded<kBits>(out, decode_step<kBits, 0>(view, codes));
    store_decoded<kBits>(out + 64, decode_step<kBits, 1>(view, codes));
    store_decoded<kBits>(out + 128, decode_step<kBits, 2>(view, codes));
    store_decoded<kBits>(out + 192, decode_step<kBits, 3>(view, codes));
    store_decoded<kBits>(out + 256, decode_step<kBits, 4>(view, codes));
    store_decoded<kBits>(out + 320, decode_step<kBits, 5>(view, codes));
    store_decoded<kBits>(out + 384, decode_step<kBits, 6>(view, codes));
    store_decoded<kBits>(out + 448, decode_step<kBits, 7>(view, codes));
    store(panel->scales + g * kTileRows, tile_scales<kBits>(view, tile));
  }
}

// Adds one panel's columns to the partial sums in y; the last panel of the columns brings the row scales.
template <int kBits, int kTokens>
inline void panel_block(const DenseView& view, const Panel& panel, int groups, int first_group, const Token* tokens,
                        int row) {
  F32x16 acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = first_group == 0 ? set1(0.0f) : load(tokens[t].y + row);
  const Tiles<float> tiles = {panel.codes, panel.scales, groups};
  multiply_tiles<kTokens>(tiles, first_group, false, tokens, acc);
  const bool is_last = first_group + groups == view.groups;
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) store(tokens[t].y + row, is_last ? scale_rows<kBits>(view, row, acc[t]) : acc[t]);
}

template <int kBits, int kTokens>
MOESTRO_INLINE void panel_block_of(int count, const DenseView& view, const Panel& panel, int groups, int first_group,
                                   const Token* tokens, int row) {
  if constexpr (kTokens == 1) {
    panel_block<kBits, 1>(view, panel, groups, first_group, tokens, row);
  } else if (count == kTokens) {
    panel_block<kBits, kTokens>(view, panel, groups, first_group, tokens, row);
  } else {
    panel_block_of<kBits, kTokens - 1>(count, view, panel, groups, first_group, tokens, row);
  }
}

template <int kBits>
inline void gemm_bits(const DenseMatrix& w, const Q8Activations& x, int tokens, int row_begin, int row_end, float* y,
                      size_t y_stride) {
  const DenseView view = view_dense(w);
  const bool uses_panel = kBits != 8 && tokens > kTokensAtOnce;
  const int panel_groups = uses_panel ? kPanelGroups : view.groups;
  Panel panel;
  Token block[kTokensAtOnce];
  for (int row = row_begin; row < row_end; row += kTileRows) {
    for (int first_group = 0; first_group < view.groups; first_group += panel_groups) {
      const int left = view.groups - first_group;
      const int groups = left < panel_groups ? left : panel_groups;
      if (uses_panel)
        fill_panel<kBits>(view, static_cast<size_t>(row / kTileRows) * view.groups + first_group, groups, &panel);
      for (int first = 0; first < tokens; first += kTokensAtOnce) {
        const int count = tokens - first < kTokensAtOnce ? tokens - first : kTokensAtOnce;
        for (int t = 0; t < count; ++t) block[t] = token_at(x, nullptr, first + t, y, y_stride);
        if (uses_panel) {
          panel_block_of<kBits, kTokensAtOnce>(count, view, panel, groups, first_group, block, row);
        } else {
          direct_block_of<kBits, kTokensAtOnce>(count, view, first == 0, block, row);
        }
      }
    }
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
