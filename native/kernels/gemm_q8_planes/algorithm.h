// The algorithm of gemm_q8_planes, for any 16 lanes: which of two paths a call takes, and the two.
//
//   direct  up to kTokensAtOnce tokens: a tile is decoded in registers and multiplied at once
//   panel   more tokens: 16 rows x 1024 columns are decoded into bytes that stay in the first level cache, then all
//           tokens pass; their partial sums wait in y between panels
// Both add the same groups in the same order, so they give the same bits.
#pragma once
#include "native/kernels/gemm_q8_planes/decode.h"

namespace moestro {
namespace {

// 2 a + step b + offset sum(q): the integer of level 8, in half units of its scale.
MOESTRO_INLINE I32x16 join_residual(I32x16 codes, I32x16 residual, const PlaneView& view, int32_t q_sum) {
  const I32x16 stepped = mul_i32(residual, set1_i32(view.residual_step));
  return add_i32(add_i32(codes, codes), add_i32(stepped, set1_i32(view.residual_offset * q_sum)));
}

template <int kLevel, int kTokens, int kStep>
MOESTRO_INLINE void direct_step(const PlaneView& view, size_t tile, const Token* tokens, size_t column, I32x16* dot,
                                I32x16* residual) {
  const Weights w = decode_step<kLevel, kStep>(view, tile);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) dot[t] = dot4(dot[t], w, tokens[t].q + column + 4 * kStep);
  if constexpr (kLevel == 8) {
    const Bytes64 r = residual_step<kStep>(view, tile);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) residual[t] = dot4_unsigned(residual[t], r, tokens[t].q + column + 4 * kStep);
  }
}

template <int kLevel, int kTokens>
inline void direct_block(const PlaneView& view, const Token* tokens, int row) {
  F32x16 acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = set1(0.0f);
  const size_t first_tile = static_cast<size_t>(row / kTileRows) * view.groups;
  for (int group = 0; group < view.groups; ++group) {
    const size_t tile = first_tile + group;
    const size_t column = static_cast<size_t>(group) * kGroup;
    prefetch_tile<kLevel>(view, tile);
    I32x16 dot[kTokens], residual[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      dot[t] = set1_i32(-kWeightBias * tokens[t].sum[group]);
      residual[t] = set1_i32(0);
    }
    direct_step<kLevel, kTokens, 0>(view, tile, tokens, column, dot, residual);
    direct_step<kLevel, kTokens, 1>(view, tile, tokens, column, dot, residual);
    direct_step<kLevel, kTokens, 2>(view, tile, tokens, column, dot, residual);
    direct_step<kLevel, kTokens, 3>(view, tile, tokens, column, dot, residual);
    direct_step<kLevel, kTokens, 4>(view, tile, tokens, column, dot, residual);
    direct_step<kLevel, kTokens, 5>(view, tile, tokens, column, dot, residual);
    direct_step<kLevel, kTokens, 6>(view, tile, tokens, column, dot, residual);
    direct_step<kLevel, kTokens, 7>(view, tile, tokens, column, dot, residual);
    const F32x16 scales = load_e3m4(view.group_scales + tile * kScaleTileBytes);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      if constexpr (kLevel == 8) dot[t] = join_residual(dot[t], residual[t], view, tokens[t].sum[group]);
      acc[t] = add_group(dot[t], scales, tokens[t].scale[group], acc[t]);
    }
  }
  const F32x16 row_scales = final_scales<kLevel>(view, row);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) store(tokens[t].y + row, mul(acc[t], row_scales));
}

template <int kLevel, int kTokens>
MOESTRO_INLINE void direct_block_of(int count, const PlaneView& view, const Token* tokens, int row) {
  if constexpr (kTokens == 1) {
    direct_block<kLevel, 1>(view, tokens, row);
  } else if (count == kTokens) {
    direct_block<kLevel, kTokens>(view, tokens, row);
  } else {
    direct_block_of<kLevel, kTokens - 1>(count, view, tokens, row);
  }
}

// A panel of 16 rows: 16 KiB of codes, at level 8 as much of residuals, 2 KiB of scales. Together they fit the 32 KiB
// of the smallest first level cache in use except at level 8, where they want 48 KiB, as newer ones have.
constexpr int kPanelGroups = 32;
struct Panel {
  alignas(64) uint8_t codes[kPanelGroups * kTileWeights];
  alignas(64) uint8_t residuals[kPanelGroups * kTileWeights];
  alignas(64) float scales[kPanelGroups * kTileRows];
};

template <int kLevel, int kStep>
MOESTRO_INLINE void panel_step(const PlaneView& view, size_t tile, uint8_t* codes, uint8_t* residuals) {
  store_weights(codes + 64 * kStep, decode_step<kLevel, kStep>(view, tile));
  if constexpr (kLevel == 8) store_bytes(residuals + 64 * kStep, residual_step<kStep>(view, tile));
}

template <int kLevel>
inline void fill_panel(const PlaneView& view, size_t first_tile, int groups, Panel* panel) {
  for (int g = 0; g < groups; ++g) {
    const size_t tile = first_tile + g;
    uint8_t* codes = panel->codes + static_cast<size_t>(g) * kTileWeights;
    uint8_t* residuals = panel->residuals + static_cast<size_t>(g) * kTileWeights;
    prefetch_tile<kLevel>(view, tile);
    panel_step<kLevel, 0>(view, tile, codes, residuals);
    panel_step<kLevel, 1>(view, tile, codes, residuals);
    panel_step<kLevel, 2>(view, tile, codes, residuals);
    panel_step<kLevel, 3>(view, tile, codes, residuals);
    panel_step<kLevel, 4>(view, tile, codes, residuals);
    panel_step<kLevel, 5>(view, tile, codes, residuals);
    panel_step<kLevel, 6>(view, tile, codes, residuals);
    panel_step<kLevel, 7>(view, tile, codes, residuals);
    store(panel->scales + g * kTileRows, load_e3m4(view.group_scales + tile * kScaleTileBytes));
  }
}

// multiply_tiles with the residuals of level 8 beside the codes.
template <int kTokens>
MOESTRO_INLINE void multiply_residual_tiles(const PlaneView& view, const Panel& panel, int groups, int first_group,
                                            const Token* tokens, F32x16* acc) {
  for (int g = 0; g < groups; ++g) {
    const int group = first_group + g;
    I32x16 dot[kTokens], residual[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      dot[t] = set1_i32(-kWeightBias * tokens[t].sum[group]);
      residual[t] = set1_i32(0);
    }
    for (int step = 0; step < 8; ++step) {
      const size_t at = static_cast<size_t>(g) * kTileWeights + 64 * step;
      const size_t column = static_cast<size_t>(group) * kGroup + 4 * step;
      const Weights w = load_weights(panel.codes + at);
      const Bytes64 r = load_bytes(panel.residuals + at);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        dot[t] = dot4(dot[t], w, tokens[t].q + column);
        residual[t] = dot4_unsigned(residual[t], r, tokens[t].q + column);
      }
    }
    const F32x16 scales = load(panel.scales + g * kTileRows);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const I32x16 joined = join_residual(dot[t], residual[t], view, tokens[t].sum[group]);
      acc[t] = add_group(joined, scales, tokens[t].scale[group], acc[t]);
    }
  }
}

// Adds one panel's columns to the partial sums in y; the last panel of the columns brings the row scales.
template <int kLevel, int kTokens>
inline void panel_block(const PlaneView& view, const Panel& panel, int groups, int first_group, const Token* tokens,
                        int row) {
  F32x16 acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = first_group == 0 ? set1(0.0f) : load(tokens[t].y + row);
  if constexpr (kLevel == 8) {
    multiply_residual_tiles<kTokens>(view, panel, groups, first_group, tokens, acc);
  } else {
    const Tiles<float> tiles = {panel.codes, panel.scales, groups};
    multiply_tiles<kTokens>(tiles, first_group, false, tokens, acc);
  }
  if (first_group + groups == view.groups) {
    const F32x16 row_scales = final_scales<kLevel>(view, row);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) acc[t] = mul(acc[t], row_scales);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) store(tokens[t].y + row, acc[t]);
}

template <int kLevel, int kTokens>
MOESTRO_INLINE void panel_block_of(int count, const PlaneView& view, const Panel& panel, int groups, int first_group,
                                   const Token* tokens, int row) {
  if constexpr (kTokens == 1) {
    panel_block<kLevel, 1>(view, panel, groups, first_group, tokens, row);
  } else if (count == kTokens) {
    panel_block<kLevel, kTokens>(view, panel, groups, first_group, tokens, row);
  } else {
    panel_block_of<kLevel, kTokens - 1>(count, view, panel, groups, first_group, tokens, row);
  }
}

struct Outputs {
  const int32_t* token_rows;
  int tokens;
  float* y;
  size_t y_stride;
};

template <int kLevel>
inline void gemm_level(const PlaneView& view, const Q8Activations& x, const Outputs& out, int row_begin, int row_end) {
  Token block[kTokensAtOnce];
  if (out.tokens <= kTokensAtOnce) {
    for (int t = 0; t < out.tokens; ++t) block[t] = token_at(x, out.token_rows, t, out.y, out.y_stride);
    for (int row = row_begin; row < row_end; row += kTileRows) {
      direct_block_of<kLevel, kTokensAtOnce>(out.tokens, view, block, row);
    }
    return;
  }
  Panel panel;
  for (int row = row_begin; row < row_end; row += kTileRows) {
    for (int first_group = 0; first_group < view.groups; first_group += kPanelGroups) {
      const int groups = view.groups - first_group < kPanelGroups ? view.groups - first_group : kPanelGroups;
      fill_panel<kLevel>(view, static_cast<size_t>(row / kTileRows) * view.groups + first_group, groups, &panel);
      for (int first = 0; first < out.tokens; first += kTokensAtOnce) {
        const int count = out.tokens - first < kTokensAtOnce ? out.tokens - first : kTokensAtOnce;
        for (int t = 0; t < count; ++t) block[t] = token_at(x, out.token_rows, first + t, out.y, out.y_stride);
        panel_block_of<kLevel, kTokensAtOnce>(count, view, panel, groups, first_group, block, row);
      }
    }
  }
}

inline void gemm_planes(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Activations& x,
                        const int32_t* token_rows, int tokens, int row_begin, int row_end, float* y, size_t y_stride) {
  if (tokens <= 0) return;
  const Outputs out = {token_rows, tokens, y, y_stride};
  const PlaneView view = view_planes(w, tables, level);
  switch (level) {
    case 2:
      return gemm_level<2>(view, x, out, row_begin, row_end);
    case 3:
      return gemm_level<3>(view, x, out, row_begin, row_end);
    case 4:
      return gemm_level<4>(view, x, out, row_begin, row_end);
    case 8:
      return gemm_level<8>(view, x, out, row_begin, row_end);
  }
}

}  // namespace
}  // namespace moestro
