// The product with many tokens: panels of decoded weights stay in the first level cache while all tokens pass; their
// partial sums wait in y between panels. Weights of 8 bits are read where they stand.
#pragma once
#include "native/kernels/gemm_q8_dense/decode.h"

namespace moestro {
namespace {

// 32 tiles of decoded weights, of one row of tiles or of several side by side: 16 KiB of codes and 2 KiB of scales.
constexpr int kPanelTiles = 32;
struct Panel {
  alignas(64) uint8_t codes[kPanelTiles * kTileWeights];
  alignas(64) float scales[kPanelTiles * kTileRows];
};

// Where the weights of a few groups stand: tile `g * group_step + r * row_step` is group g of row of tiles r.
template <typename Scale>
struct Tiles {
  const uint8_t* codes;
  const Scale* scales;
  size_t group_step, row_step;
  int first_group, groups;
};

// Tokens that follow each other, from one on, and their outputs of the rows at hand.
struct TokenRows {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  size_t cols, groups;
  float* y;
  size_t y_stride;
};

template <int kBits, int kRowTiles>
inline void fill_panel(const DenseView view, size_t first_tile, int groups, Panel* panel) {
  for (int i = 0; i < groups * kRowTiles; ++i) {
    const size_t tile = first_tile + i / kRowTiles + static_cast<size_t>(i % kRowTiles) * view.groups;
    const uint8_t* codes = view.codes + tile * kCodeTileBytes<kBits>;
    uint8_t* out = panel->codes + static_cast<size_t>(i) * kTileWeights;
    prefetch_tile<kBits>(view, tile);
    store_decoded<kBits>(out, decode_step<kBits, 0>(view, codes));
    store_decoded<kBits>(out + 64, decode_step<kBits, 1>(view, codes));
    store_decoded<kBits>(out + 128, decode_step<kBits, 2>(view, codes));
    store_decoded<kBits>(out + 192, decode_step<kBits, 3>(view, codes));
    store_decoded<kBits>(out + 256, decode_step<kBits, 4>(view, codes));
    store_decoded<kBits>(out + 320, decode_step<kBits, 5>(view, codes));
    store_decoded<kBits>(out + 384, decode_step<kBits, 6>(view, codes));
    store_decoded<kBits>(out + 448, decode_step<kBits, 7>(view, codes));
    store(panel->scales + i * kTileRows, tile_scales<kBits>(view, tile));
  }
}

// Adds these tiles' products with kTokens tokens to y, or puts them there where the groups are the first; the last
// groups bring the row scales. Of two rows of tiles the sums of floats wait in memory while a group's integers fill the
// registers.
template <int kBits, int kRowTiles, int kTokens, typename Scale>
inline void multiply_tiles(const DenseView& view, const Tiles<Scale>& tiles, const TokenRows& tokens, int row) {
  F32x16 acc[kRowTiles * kTokens];
#pragma GCC unroll 2
  for (int r = 0; r < kRowTiles; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const float* y = tokens.y + t * tokens.y_stride + r * kTileRows;
      acc[r * kTokens + t] = tiles.first_group == 0 ? set1(0.0f) : load(y);
    }
  }
  const size_t cols = tokens.cols, groups = tokens.groups;
  for (int g = 0; g < tiles.groups; ++g) {
    const size_t group = static_cast<size_t>(tiles.first_group) + g;
    const int8_t* q = tokens.q + group * kGroup;
    const size_t tile = g * tiles.group_step;
    F32x16* const sums = kRowTiles == 1 ? acc : const_cast<F32x16*>(one_pointer(acc));
    I32x16 dot[kRowTiles][kTokens];
#pragma GCC unroll 2
    for (int r = 0; r < kRowTiles; ++r) {
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) dot[r][t] = start_dot<kWeightBias>(tokens.sum + t * groups + group);
    }
#pragma GCC unroll 8
    for (int step = 0; step < 8; ++step) {
      Weights w[kRowTiles];
#pragma GCC unroll 2
      for (int r = 0; r < kRowTiles; ++r) {
        w[r] = load_weights(tiles.codes + (tile + r * tiles.row_step) * kTileWeights + 64 * step);
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
        for (int r = 0; r < kRowTiles; ++r) dot[r][t] = dot4(dot[r][t], w[r], q + t * cols + 4 * step);
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRowTiles; ++r) {
      const F32x16 scales = load_scales(tiles.scales + (tile + r * tiles.row_step) * kTileRows);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        F32x16& sum = sums[r * kTokens + t];
        sum = add_group(dot[r][t], scales, tokens.scale[t * groups + group], sum);
      }
    }
  }
  const bool is_last = static_cast<size_t>(tiles.first_group) + tiles.groups == groups;
#pragma GCC unroll 2
  for (int r = 0; r < kRowTiles; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const F32x16 sum = acc[r * kTokens + t];
      store(tokens.y + t * tokens.y_stride + r * kTileRows,
            is_last ? scale_rows<kBits>(view, row + r * kTileRows, sum) : sum);
    }
  }
}

// `count` tokens, 1 <= count <= kTokens, through the function made for that count.
template <int kBits, int kRowTiles, int kTokens, typename Scale>
MOESTRO_INLINE void multiply_tiles_of(int count, const DenseView& view, const Tiles<Scale>& tiles,
                                      const TokenRows& tokens, int row) {
  if constexpr (kTokens == 1) {
    multiply_tiles<kBits, kRowTiles, 1>(view, tiles, tokens, row);
  } else if (count == kTokens) {
    multiply_tiles<kBits, kRowTiles, kTokens>(view, tiles, tokens, row);
  } else {
    multiply_tiles_of<kBits, kRowTiles, kTokens - 1>(count, view, tiles, tokens, row);
  }
}

// kRowTiles rows of tiles from `row` on, with all tokens.
template <int kBits, int kRowTiles>
inline void panel_rows(const DenseView& view, const Q8Activations& x, int tokens, int row, float* y, size_t y_stride) {
  constexpr int kPanelGroups = kPanelTiles / kRowTiles;
  Panel panel;
  for (int first_group = 0; first_group < view.groups; first_group += kPanelGroups) {
    const int left = view.groups - first_group, groups = left < kPanelGroups ? left : kPanelGroups;
    const size_t tile = static_cast<size_t>(row / kTileRows) * view.groups + first_group;
    if constexpr (kBits != 8) fill_panel<kBits, kRowTiles>(view, tile, groups, &panel);
    for (int first = 0; first < tokens; first += kTokensAtOnce) {
      const int count = tokens - first < kTokensAtOnce ? tokens - first : kTokensAtOnce;
      const size_t all_groups = view.groups, from = first;
      const TokenRows block = {x.q + from * x.cols,
                               x.scale + from * all_groups,
                               x.sum + from * all_groups,
                               static_cast<size_t>(x.cols),
                               all_groups,
                               y + from * y_stride + row,
                               y_stride};
      if constexpr (kBits == 8) {
        const Tiles<uint16_t> tiles = {
            view.codes + tile * kTileWeights, view.scales + tile * kTileRows, 1, all_groups, first_group, groups};
        multiply_tiles_of<kBits, kRowTiles, kTokensAtOnce>(count, view, tiles, block, row);
      } else {
        const Tiles<float> tiles = {panel.codes, panel.scales, kRowTiles, 1, first_group, groups};
        multiply_tiles_of<kBits, kRowTiles, kTokensAtOnce>(count, view, tiles, block, row);
      }
    }
  }
}

template <int kBits>
inline void panels(const DenseView& view, const Q8Activations& x, int tokens, int row_begin, int row_end, float* y,
                   size_t y_stride) {
  constexpr int kRows = kRowTilesAtOnce * kTileRows;
  int row = row_begin;
  for (; row + kRows <= row_end; row += kRows) panel_rows<kBits, kRowTilesAtOnce>(view, x, tokens, row, y, y_stride);
  for (; row < row_end; row += kTileRows) panel_rows<kBits, 1>(view, x, tokens, row, y, y_stride);
}

}  // namespace
}  // namespace moestro
