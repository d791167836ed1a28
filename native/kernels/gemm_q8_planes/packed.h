// The product with activations in blocks of 16 tokens (formats.h, Q8Block), for any 16 lanes: panel after panel of
// weights is decoded, and all blocks pass. One pointer with constant offsets names every activation of a group, so
// nothing but sums is kept in registers. Same order of sums as algorithm.h, hence the same bits.
#pragma once
#include "native/kernels/gemm_q8_planes/panel.h"

namespace moestro {
namespace {

// What one panel adds to the outputs of one block: where its sums wait between panels.
struct PackedOutput {
  float* y;  // of the block's first token, at the panel's first row
  size_t y_stride;
  bool is_first, is_last;  // of the panels of these rows
};

// Sums of the first `count` of kTokens tokens with one row of tiles; those of the others are of no use.
template <int kTokens>
MOESTRO_INLINE void load_sums(const PackedOutput& out, int count, F32x16* acc) {
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    acc[t] = out.is_first || t >= count ? set1(0.0f) : load(out.y + t * out.y_stride);
  }
}

template <int kTokens>
MOESTRO_INLINE void store_sums(const PackedOutput& out, int count, F32x16 row_scales, const F32x16* acc) {
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    if (t < count) store(out.y + t * out.y_stride, out.is_last ? mul(acc[t], row_scales) : acc[t]);
  }
}

// kTokens tokens of a block, from `first_token` on, of which `count` count, with one row of tiles.
template <int kLevel, int kTokens>
inline void multiply_packed(const PlaneView& view, const Panel& panel, int groups, size_t next_tile,
                            const Q8Block* blocks, int first_token, int count, F32x16 row_scales,
                            const PackedOutput& out) {
  F32x16 acc[kTokens];
  load_sums<kTokens>(out, count, acc);
  for (int g = 0; g < groups; ++g) {
    const int8_t* q = one_pointer(blocks[g].q[first_token]);
    const float* scale = one_pointer(blocks[g].scale + first_token);
    const int32_t* bias = one_pointer(blocks[g].bias + first_token);
    if (next_tile != 0) prefetch_panel<kLevel>(view, next_tile + g);
    I32x16 dot[kTokens], residual[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      dot[t] = set1_i32(kWeightBias == 0 ? 0 : bias[t]);
      residual[t] = set1_i32(0);
    }
#pragma GCC unroll 8
    for (int step = 0; step < 8; ++step) {
      const size_t at = static_cast<size_t>(g) * kTileWeights + 64 * step;
      const Weights w = load_weights(panel.codes + at);
      Bytes64 rest;
      if constexpr (kLevel == 8) rest = load_bytes(panel.residuals + at);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        dot[t] = dot4(dot[t], w, q + t * kGroup + 4 * step);
        if constexpr (kLevel == 8) residual[t] = dot4_unsigned(residual[t], rest, q + t * kGroup + 4 * step);
      }
    }
    const F32x16 scales = load(panel.scales + g * kTileRows);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      if constexpr (kLevel == 8) dot[t] = join_residual(dot[t], residual[t], view, -(bias[t] >> 7));
      acc[t] = add_group(dot[t], scales, scale[t], acc[t]);
    }
  }
  store_sums<kTokens>(out, count, row_scales, acc);
}

// Calls fill(tile, groups) for every panel of the row of tiles at `row`, and multiply(groups, next_tile, blocks,
// tokens, row_scales, out) for every block of 16 tokens with it; next_tile is that of the panel to come, to be asked
// for meanwhile, and 0 in all blocks but the first and where nothing comes.
template <int kLevel, typename Fill, typename Multiply>
inline void for_each_panel(const PlaneView& view, const Fill& fill, const Q8Block* x, int tokens, int row, int row_end,
                           float* y, size_t y_stride, const Multiply& multiply) {
  const F32x16 row_scales = final_scales<kLevel>(view, row);
  for (int first_group = 0; first_group < view.groups; first_group += kPanelTiles) {
    const int groups = view.groups - first_group < kPanelTiles ? view.groups - first_group : kPanelTiles;
    const size_t tile = static_cast<size_t>(row / kTileRows) * view.groups + first_group;
    const bool is_last = first_group + groups == view.groups;
    // The next panel is that of the groups that follow, or of the next row of tiles: they lie behind each other.
    const size_t next_tile = is_last && row + kTileRows >= row_end ? 0 : tile + groups;
    fill(tile, groups);
    for (int first = 0; first < tokens; first += kBlockTokens) {
      const int count = tokens - first < kBlockTokens ? tokens - first : kBlockTokens;
      const Q8Block* blocks = x + static_cast<size_t>(first / kBlockTokens) * view.groups + first_group;
      const PackedOutput out = {y + first * y_stride + row, y_stride, first_group == 0, is_last};
      multiply(groups, first == 0 ? next_tile : 0, blocks, count, row_scales, out);
    }
  }
}

template <int kLevel>
inline void gemm_packed_level(const PlaneView& view, const Q8Block* x, int tokens, int row_begin, int row_end, float* y,
                              size_t y_stride) {
  Panel panel;
  const auto fill = [&](size_t tile, int groups) { fill_panel<kLevel>(view, tile, groups, &panel); };
  const auto multiply = [&](int groups, size_t next_tile, const Q8Block* blocks, int count, F32x16 row_scales,
                            const PackedOutput& out) {
    constexpr int kHalf = kTokensAtOnce / 2;
    for (int first = 0; first < count; first += kTokensAtOnce) {
      const size_t ahead = first == 0 ? next_tile : 0;
      const PackedOutput part = {out.y + first * y_stride, y_stride, out.is_first, out.is_last};
      const auto run = count - first > kHalf ? multiply_packed<kLevel, kTokensAtOnce> : multiply_packed<kLevel, kHalf>;
      run(view, panel, groups, ahead, blocks, first, count - first, row_scales, part);
    }
  };
  for (int row = row_begin; row < row_end; row += kTileRows) {
    for_each_panel<kLevel>(view, fill, x, tokens, row, row_end, y, y_stride, multiply);
  }
}

inline void gemm_packed(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Block* x, int tokens,
                        int row_begin, int row_end, float* y, size_t y_stride) {
  const PlaneView view = view_planes(w, tables, level);
  switch (level) {
    case 2:
      return gemm_packed_level<2>(view, x, tokens, row_begin, row_end, y, y_stride);
    case 3:
      return gemm_packed_level<3>(view, x, tokens, row_begin, row_end, y, y_stride);
    case 4:
      return gemm_packed_level<4>(view, x, tokens, row_begin, row_end, y, y_stride);
    case 8:
      return gemm_packed_level<8>(view, x, tokens, row_begin, row_end, y, y_stride);
  }
}

}  // namespace
}  // namespace moestro
