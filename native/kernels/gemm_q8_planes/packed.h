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

// kTokens tokens of a block, from `first_token` on, of which `count` count, with kRowTiles rows of tiles. All
// sums are in registers: where one row of tiles is multiplied with kTokensAtOnce tokens, two are with half as many.
template <int kLevel, int kRowTiles, int kTokens>
inline void multiply_packed(const PlaneView& view, const Panel& panel, int groups, const Ahead& ahead,
                            const Q8Block* blocks, int first_token, int count, const F32x16* row_scales,
                            const PackedOutput& out) {
  F32x16 acc[kRowTiles][kTokens];
#pragma GCC unroll 2
  for (int r = 0; r < kRowTiles; ++r) {
    load_sums<kTokens>({out.y + r * kTileRows, out.y_stride, out.is_first, out.is_last}, count, acc[r]);
  }
  for (int g = 0; g < groups; ++g) {
    const int8_t* q = one_pointer(blocks[g].q[first_token]);
    const float* scale = one_pointer(blocks[g].scale + first_token);
    const int32_t* bias = one_pointer(blocks[g].bias + first_token);
    if (ahead.slot < ahead.slots_end) {
#pragma GCC unroll 2
      for (int r = 0; r < kRowTiles; ++r) prefetch_panel(view, ahead.tile + g + r * view.groups, ahead);
    }
    I32x16 dot[kRowTiles][kTokens], residual[kRowTiles][kTokens];
#pragma GCC unroll 2
    for (int r = 0; r < kRowTiles; ++r) {
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        dot[r][t] = set1_i32(kWeightBias == 0 ? 0 : bias[t]);
        residual[r][t] = set1_i32(0);
      }
    }
#pragma GCC unroll 8
    for (int step = 0; step < 8; ++step) {
      const size_t at = static_cast<size_t>(g) * kRowTiles * kTileWeights + 64 * step;
      Weights w[kRowTiles];
      Bytes64 rest[kRowTiles];
#pragma GCC unroll 2
      for (int r = 0; r < kRowTiles; ++r) {
        w[r] = load_weights(panel.codes + at + r * kTileWeights);
        if constexpr (kLevel == 8) rest[r] = load_bytes(panel.residuals + at + r * kTileWeights);
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
        for (int r = 0; r < kRowTiles; ++r) {
          dot[r][t] = dot4(dot[r][t], w[r], q + t * kGroup + 4 * step);
          if constexpr (kLevel == 8) {
            residual[r][t] = dot4_unsigned(residual[r][t], rest[r], q + t * kGroup + 4 * step);
          }
        }
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRowTiles; ++r) {
      const F32x16 scales = load(panel.scales + (g * kRowTiles + r) * kTileRows);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        if constexpr (kLevel == 8) dot[r][t] = join_residual(dot[r][t], residual[r][t], view, -(bias[t] >> 7));
        acc[r][t] = add_group(dot[r][t], scales, scale[t], acc[r][t]);
      }
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < kRowTiles; ++r) {
    store_sums<kTokens>({out.y + r * kTileRows, out.y_stride, out.is_first, out.is_last}, count, row_scales[r], acc[r]);
  }
}

// Calls fill(tile, groups) for every panel of kRowTiles rows of tiles from `row` on, and multiply(groups, next_tile,
// blocks, tokens, row_scales, out) for every block of 16 tokens with it; next_tile is that of the panel to come, to be
// asked for meanwhile, and 0 in all blocks but the first and where nothing comes.
template <int kLevel, int kRowTiles, typename Fill, typename Multiply>
inline void for_each_panel(const PlaneView& view, const Fill& fill, const Q8Block* x, int tokens, int row, float* y,
                           size_t y_stride, const Multiply& multiply) {
  constexpr int kPanelGroups = kPanelTiles / kRowTiles;
  F32x16 row_scales[kRowTiles];
  for (int r = 0; r < kRowTiles; ++r) row_scales[r] = final_scales<kLevel>(view, row + r * kTileRows);
  for (int first_group = 0; first_group < view.groups; first_group += kPanelGroups) {
    const int groups = view.groups - first_group < kPanelGroups ? view.groups - first_group : kPanelGroups;
    const size_t row_tile = static_cast<size_t>(row / kTileRows) * view.groups, tile = row_tile + first_group;
    const bool is_last = first_group + groups == view.groups;
    size_t next_tile = is_last ? row_tile + kRowTiles * view.groups : tile + groups;
    // Also beyond the rows of this call, which most often come next.
    if (is_last && row + 2 * kRowTiles * kTileRows > view.rows) next_tile = 0;
    fill(tile, groups);
    for (int first = 0; first < tokens; first += kBlockTokens) {
      const int count = tokens - first < kBlockTokens ? tokens - first : kBlockTokens;
      const Q8Block* blocks = x + static_cast<size_t>(first / kBlockTokens) * view.groups + first_group;
      const PackedOutput out = {y + first * y_stride + row, y_stride, first_group == 0, is_last};
      multiply(groups, first == 0 ? next_tile : 0, blocks, count, row_scales, out);
    }
  }
}

// kRowTiles rows of tiles from `row` on.
template <int kLevel, int kRowTiles>
inline void packed_rows(const PlaneView& view, const Q8Block* x, int tokens, int row, float* y, size_t y_stride) {
  constexpr int kMost = kTokensAtOnce / kRowTiles, kHalf = kMost / 2;
  Panel panel;
  for_each_panel<kLevel, kRowTiles>(
      view, [&](size_t tile, int groups) { fill_panel<kLevel, kRowTiles>(view, tile, groups, &panel); }, x, tokens, row,
      y, y_stride,
      [&](int groups, size_t next_tile, const Q8Block* blocks, int count, const F32x16* row_scales,
          const PackedOutput& out) {
        const int passes = (count + kMost - 1) / kMost;
        for (int pass = 0; pass < passes; ++pass) {
          const int first = pass * kMost;
          // Each pass asks for a part of the slots: all at once would be more lines than can be on their way.
          const Ahead ahead = {next_tile, pass * kLevel / passes, next_tile == 0 ? 0 : (pass + 1) * kLevel / passes};
          const PackedOutput part = {out.y + first * y_stride, y_stride, out.is_first, out.is_last};
          const auto multiply = count - first > kHalf ? multiply_packed<kLevel, kRowTiles, kMost>
                                                      : multiply_packed<kLevel, kRowTiles, kHalf>;
          multiply(view, panel, groups, ahead, blocks, first, count - first, row_scales, part);
        }
      });
}

template <int kLevel>
inline void gemm_packed_level(const PlaneView& view, const Q8Block* x, int tokens, int row_begin, int row_end, float* y,
                              size_t y_stride) {
  constexpr int kRows = kRowTilesAtOnce * kTileRows;
  int row = row_begin;
  for (; row + kRows <= row_end; row += kRows) {
    packed_rows<kLevel, kRowTilesAtOnce>(view, x, tokens, row, y, y_stride);
  }
  for (; row < row_end; row += kTileRows) packed_rows<kLevel, 1>(view, x, tokens, row, y, y_stride);
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
