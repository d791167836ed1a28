// The algorithm of gemm_q8_planes, for any 16 lanes: a tile is decoded in registers and multiplied at once with up to
// kTokensAtOnce tokens. For more of them packed.h is the faster way; it adds the same groups in the same order.
#pragma once
#include "native/kernels/gemm_q8_planes/decode.h"

namespace moestro {
namespace {

template <int kLevel, int kTokens, int kStep, typename Codes>
MOESTRO_INLINE void direct_step(const PlaneView& view, const Codes& codes, size_t tile, const Token* tokens,
                                size_t column, I32x16* dot, I32x16* residual) {
  const Weights w = decode_step<kStep>(view, codes);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) dot[t] = dot4(dot[t], w, tokens[t].q + column + 4 * kStep);
  if constexpr (kLevel == 8) {
    const Bytes64 r = residual_step<kStep>(view, tile);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) residual[t] = dot4_unsigned(residual[t], r, tokens[t].q + column + 4 * kStep);
  }
}

template <int kLevel, int kTokens>
inline void direct_block(const PlaneView& view, const Token* tokens, int row, int row_end) {
  F32x16 acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = set1(0.0f);
  const size_t first_tile = static_cast<size_t>(row / kTileRows) * view.groups;
  const size_t end = static_cast<size_t>(row_end / kTileRows) * view.groups;
  for (int group = 0; group < view.groups; ++group) {
    const size_t tile = first_tile + group;
    const size_t column = static_cast<size_t>(group) * kGroup;
    prefetch_tile<kLevel>(view, tile, end);
    const auto codes = tile_codes<kLevel>(view, tile);
    // One or two tokens alone: two sums each, or one addition would wait for the other.
    I32x16 dot[kTokens], other[kTokens], residual[kTokens];
    I32x16* const odd = kTokens <= 2 ? other : dot;
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      dot[t] = start_dot<kWeightBias>(tokens[t].sum + group);
      other[t] = residual[t] = set1_i32(0);
    }
    direct_step<kLevel, kTokens, 0>(view, codes, tile, tokens, column, dot, residual);
    direct_step<kLevel, kTokens, 1>(view, codes, tile, tokens, column, odd, residual);
    direct_step<kLevel, kTokens, 2>(view, codes, tile, tokens, column, dot, residual);
    direct_step<kLevel, kTokens, 3>(view, codes, tile, tokens, column, odd, residual);
    direct_step<kLevel, kTokens, 4>(view, codes, tile, tokens, column, dot, residual);
    direct_step<kLevel, kTokens, 5>(view, codes, tile, tokens, column, odd, residual);
    direct_step<kLevel, kTokens, 6>(view, codes, tile, tokens, column, dot, residual);
    direct_step<kLevel, kTokens, 7>(view, codes, tile, tokens, column, odd, residual);
    const F32x16 scales = load_e3m4(view.group_scales + tile * kScaleTileBytes);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      if constexpr (kTokens <= 2) dot[t] = add_i32(dot[t], other[t]);
      if constexpr (kLevel == 8) dot[t] = join_residual(dot[t], residual[t], view, tokens[t].sum[group]);
      acc[t] = add_group(dot[t], scales, tokens[t].scale[group], acc[t]);
    }
  }
  const F32x16 row_scales = final_scales<kLevel>(view, row);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) store(tokens[t].y + row, mul(acc[t], row_scales));
}

template <int kStep>
MOESTRO_INLINE void residual_pass_step(const PlaneView& view, size_t tile, const int8_t* q, I32x16* sum) {
  *sum = dot4_unsigned(*sum, residual_step<kStep>(view, tile), q + 4 * kStep);
}

// Level 8 for one token in two passes over a few tiles, the codes of 4 bits first and then their residuals: nine
// streams at once are more than memory likes. Each pass asks for the lines of the pass after it. Gives the sums of
// direct_block.
inline void direct_block_in_passes(const PlaneView& view, const Token& token, int row, int row_end) {
  constexpr int kPassTiles = 32;
  F32x16 acc = set1(0.0f);
  const size_t first_tile = static_cast<size_t>(row / kTileRows) * view.groups;
  const size_t end = static_cast<size_t>(row_end / kTileRows) * view.groups;
  I32x16 sums[kPassTiles];
  for (int first = 0; first < view.groups; first += kPassTiles) {
    const int last = first + kPassTiles < view.groups ? first + kPassTiles : view.groups;
    for (int group = first; group < last; ++group) {
      const size_t tile = first_tile + group;
      const size_t column = static_cast<size_t>(group) * kGroup;
      for (int slot = 4; slot < 8; ++slot) prefetch(view.slots[slot] + tile * kBitTileBytes);
      if (tile % 4 == 0) prefetch_scales(view, tile + kPassTiles, end);
      const auto codes = tile_codes<8>(view, tile);
      I32x16 dot = start_dot<kWeightBias>(token.sum + group), odd = set1_i32(0);
      direct_step<4, 1, 0>(view, codes, tile, &token, column, &dot, nullptr);
      direct_step<4, 1, 1>(view, codes, tile, &token, column, &odd, nullptr);
      direct_step<4, 1, 2>(view, codes, tile, &token, column, &dot, nullptr);
      direct_step<4, 1, 3>(view, codes, tile, &token, column, &odd, nullptr);
      direct_step<4, 1, 4>(view, codes, tile, &token, column, &dot, nullptr);
      direct_step<4, 1, 5>(view, codes, tile, &token, column, &odd, nullptr);
      direct_step<4, 1, 6>(view, codes, tile, &token, column, &dot, nullptr);
      direct_step<4, 1, 7>(view, codes, tile, &token, column, &odd, nullptr);
      sums[group - first] = add_i32(dot, odd);
    }
    for (int group = first; group < last; ++group) {
      const size_t tile = first_tile + group;
      prefetch_slots(view, 0, 4, tile + kPassTiles, end);
      const int8_t* const q = token.q + static_cast<size_t>(group) * kGroup;
      I32x16 even = set1_i32(0), odd = set1_i32(0);
      residual_pass_step<0>(view, tile, q, &even);
      residual_pass_step<1>(view, tile, q, &odd);
      residual_pass_step<2>(view, tile, q, &even);
      residual_pass_step<3>(view, tile, q, &odd);
      residual_pass_step<4>(view, tile, q, &even);
      residual_pass_step<5>(view, tile, q, &odd);
      residual_pass_step<6>(view, tile, q, &even);
      residual_pass_step<7>(view, tile, q, &odd);
      const F32x16 scales = load_e3m4(view.group_scales + tile * kScaleTileBytes);
      const I32x16 dot = join_residual(sums[group - first], add_i32(even, odd), view, token.sum[group]);
      acc = add_group(dot, scales, token.scale[group], acc);
    }
  }
  store(token.y + row, mul(acc, final_scales<8>(view, row)));
}

template <int kLevel, int kTokens>
MOESTRO_INLINE void direct_block_of(int count, const PlaneView& view, const Token* tokens, int row, int row_end) {
  if constexpr (kLevel == 8 && kTokens == 1) {
    if (view.in_runs)
      direct_block<8, 1>(view, tokens, row, row_end);
    else
      direct_block_in_passes(view, *tokens, row, row_end);
  } else if constexpr (kTokens == 1) {
    direct_block<kLevel, 1>(view, tokens, row, row_end);
  } else if (count == kTokens) {
    direct_block<kLevel, kTokens>(view, tokens, row, row_end);
  } else {
    direct_block_of<kLevel, kTokens - 1>(count, view, tokens, row, row_end);
  }
}

template <int kLevel>
inline void gemm_level(const PlaneView& view, const Q8Activations& x, const int32_t* token_rows, int tokens,
                       int row_begin, int row_end, float* y, size_t y_stride) {
  Token block[kTokensAtOnce];
  const size_t begin = static_cast<size_t>(row_begin / kTileRows) * view.groups;
  prefetch_first<kLevel>(view, begin, static_cast<size_t>(row_end / kTileRows) * view.groups);
  for (int first = 0; first < tokens; first += kTokensAtOnce) {
    const int count = tokens - first < kTokensAtOnce ? tokens - first : kTokensAtOnce;
    for (int t = 0; t < count; ++t) block[t] = token_at(x, token_rows, first + t, y, y_stride);
    for (int row = row_begin; row < row_end; row += kTileRows) {
      direct_block_of<kLevel, kTokensAtOnce>(count, view, block, row, row_end);
    }
  }
}

inline void gemm_planes(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Activations& x,
                        const int32_t* token_rows, int tokens, int row_begin, int row_end, float* y, size_t y_stride) {
  const PlaneView view = view_planes(w, tables, level);
  switch (level) {
    case 2:
      return gemm_level<2>(view, x, token_rows, tokens, row_begin, row_end, y, y_stride);
    case 3:
      return gemm_level<3>(view, x, token_rows, tokens, row_begin, row_end, y, y_stride);
    case 4:
      return gemm_level<4>(view, x, token_rows, tokens, row_begin, row_end, y, y_stride);
    case 8:
      return gemm_level<8>(view, x, token_rows, tokens, row_begin, row_end, y, y_stride);
  }
}

}  // namespace
}  // namespace moestro
