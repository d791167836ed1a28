// gemm_q8_planes_packed for AMX: integers by tdpbssd, the rest by the lanes of simd/avx512.h.
//
// A tile of activations is 16 tokens x 32 columns, one of weights 8 steps of 64 bytes: exactly a group of a decoded
// panel. Their product is 16 tokens x 16 rows of int32, one register a token, and is added as everywhere:
// acc = fma(float(int), scale, acc). Integers are exact, so the bits are those of the other variants.
#include "native/kernels/gemm_q8_planes/gemm_q8_planes.h"

#if defined(__x86_64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/avx512.h"
#include "native/kernels/gemm_q8_planes/packed.h"
// clang-format on
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("amx-tile,amx-int8"))), apply_to = function)
#else
#pragma GCC target("amx-tile,amx-int8")
#endif

namespace moestro {
namespace {

// The operand of ldtilecfg.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t zeros[14] = {};
  uint16_t column_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0, 1: sums of two groups in turn; 2, 3: activations; 4, 5: weights; 6: residuals of level 8.
void configure_tiles(int tokens) {
  TileConfig config;
  for (int t = 0; t < 7; ++t) {
    config.column_bytes[t] = t == 2 || t == 3 ? kGroup : 64;
    config.rows[t] = t < 4 ? static_cast<uint8_t>(tokens) : 8;
  }
  _tile_loadconfig(&config);
}

// A view whose table holds signed weights and, for level 8, residuals already multiplied and shifted.
struct SignedTables {
  PlaneView view;
  Table residuals;
};

template <int kLevel, int kStep>
MOESTRO_INLINE void signed_step(const SignedTables& tables, size_t tile, uint8_t* codes, uint8_t* residuals) {
  store_weights(codes + 64 * kStep, decode_step<kStep>(tables.view, tile_codes<kLevel>(tables.view, tile)));
  if constexpr (kLevel == 8) {
    store_weights(residuals + 64 * kStep, lookup(tables.residuals, residual_step<kStep>(tables.view, tile)));
  }
}

// `tables` by value: bytes are stored here, which could otherwise be those of the view, and it would be loaded again
// after each.
template <int kLevel>
inline void fill_signed(const SignedTables tables, size_t tile, int groups, Panel* panel) {
  for (int g = 0; g < groups; ++g) {
    uint8_t* codes = panel->codes + static_cast<size_t>(g) * kTileWeights;
    uint8_t* residuals = panel->residuals + static_cast<size_t>(g) * kTileWeights;
    const size_t at = tile + g;
    signed_step<kLevel, 0>(tables, at, codes, residuals);
    signed_step<kLevel, 1>(tables, at, codes, residuals);
    signed_step<kLevel, 2>(tables, at, codes, residuals);
    signed_step<kLevel, 3>(tables, at, codes, residuals);
    signed_step<kLevel, 4>(tables, at, codes, residuals);
    signed_step<kLevel, 5>(tables, at, codes, residuals);
    signed_step<kLevel, 6>(tables, at, codes, residuals);
    signed_step<kLevel, 7>(tables, at, codes, residuals);
    store(panel->scales + g * kTileRows, load_e3m4(tables.view.group_scales + at * kScaleTileBytes));
  }
}

// The sums of one group into `out` [16][16]. Level 8 counts in half units: its codes are added twice.
template <int kLevel, int kOdd>
MOESTRO_INLINE void multiply_group(const Panel& panel, int g, const Q8Block& block, int32_t* out) {
  const uint8_t* codes = panel.codes + static_cast<size_t>(g) * kTileWeights;
  if constexpr (kOdd) {
    _tile_zero(1);
    _tile_loadd(3, block.q, kGroup);
    _tile_loadd(5, codes, 64);
    _tile_dpbssd(1, 3, 5);
    if constexpr (kLevel == 8) {
      _tile_loadd(6, panel.residuals + static_cast<size_t>(g) * kTileWeights, 64);
      _tile_dpbssd(1, 3, 5);
      _tile_dpbssd(1, 3, 6);
    }
    _tile_stored(1, out, 64);
  } else {
    _tile_zero(0);
    _tile_loadd(2, block.q, kGroup);
    _tile_loadd(4, codes, 64);
    _tile_dpbssd(0, 2, 4);
    if constexpr (kLevel == 8) {
      _tile_loadd(6, panel.residuals + static_cast<size_t>(g) * kTileWeights, 64);
      _tile_dpbssd(0, 2, 4);
      _tile_dpbssd(0, 2, 6);
    }
    _tile_stored(0, out, 64);
  }
}

template <int kTokens>
MOESTRO_INLINE void add_products(const Panel& panel, int g, const Q8Block& block, const int32_t* sums, F32x16* acc) {
  const F32x16 scales = load(panel.scales + g * kTileRows);
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    const I32x16 dot = {_mm512_load_si512(sums + 16 * t)};
    acc[t] = add_group(dot, scales, block.scale[t], acc[t]);
  }
}

// kTokens: those of the block, rounded up to a multiple of 4; `count` of them are stored.
template <int kLevel, int kTokens>
inline void multiply_block(const PlaneView& view, const Panel& panel, int groups, size_t next_tile,
                           const Q8Block* blocks, int count, F32x16 row_scales, const PackedOutput& out) {
  // The products of a group wait here while those of the next are under way.
  alignas(64) int32_t sums[4][16 * 16];
  F32x16 acc[kTokens];
  load_sums<kTokens>(out, count, acc);
  multiply_group<kLevel, 0>(panel, 0, blocks[0], sums[0]);
  if (groups > 1) multiply_group<kLevel, 1>(panel, 1, blocks[1], sums[1]);
  for (int g = 0; g < groups; g += 2) {
    if (next_tile != 0) {
      prefetch_panel(view, next_tile + g, {next_tile, 0, kLevel});
      prefetch_panel(view, next_tile + g + 1, {next_tile, 0, kLevel});
    }
    if (g + 2 < groups) multiply_group<kLevel, 0>(panel, g + 2, blocks[g + 2], sums[(g + 2) % 4]);
    add_products<kTokens>(panel, g, blocks[g], sums[g % 4], acc);
    if (g + 1 >= groups) break;
    if (g + 3 < groups) multiply_group<kLevel, 1>(panel, g + 3, blocks[g + 3], sums[(g + 3) % 4]);
    add_products<kTokens>(panel, g + 1, blocks[g + 1], sums[(g + 1) % 4], acc);
  }
  store_sums<kTokens>(out, count, row_scales, acc);
}

template <int kLevel>
inline void gemm_amx_level(const SignedTables& tables, const Q8Block* x, int tokens, int row_begin, int row_end,
                           float* y, size_t y_stride) {
  const PlaneView& view = tables.view;
  Panel panel;
  int configured = 0;
  const auto fill = [&](size_t tile, int groups) { fill_signed<kLevel>(tables, tile, groups, &panel); };
  const auto multiply = [&](int groups, size_t next_tile, const Q8Block* blocks, int count, const F32x16* row_scales,
                            const PackedOutput& out) {
    const int rounded = (count + 3) / 4 * 4;
    if (rounded != configured) configure_tiles(rounded);
    configured = rounded;
    switch (rounded) {
      case 4:
        return multiply_block<kLevel, 4>(view, panel, groups, next_tile, blocks, count, *row_scales, out);
      case 8:
        return multiply_block<kLevel, 8>(view, panel, groups, next_tile, blocks, count, *row_scales, out);
      case 12:
        return multiply_block<kLevel, 12>(view, panel, groups, next_tile, blocks, count, *row_scales, out);
      case 16:
        return multiply_block<kLevel, 16>(view, panel, groups, next_tile, blocks, count, *row_scales, out);
    }
  };
  for (int row = row_begin; row < row_end; row += kTileRows) {
    for_each_panel<kLevel, 1>(view, fill, x, tokens, row, y, y_stride, multiply);
  }
  _tile_release();
}

bool fits_int8(int value) { return value >= -128 && value <= 127; }

}  // namespace

void gemm_q8_planes_packed_amx(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Block* x, int tokens,
                               int row_begin, int row_end, float* y, size_t y_stride) {
  if (tokens <= 0 || row_begin >= row_end) return;
  const int offset = tables.residual_offset, largest = 15 * tables.residual_step + offset;
  if (level == 8 && !(fits_int8(offset) && fits_int8(largest))) {
    return gemm_q8_planes_packed_avx512(w, tables, level, x, tokens, row_begin, row_end, y, y_stride);
  }
  SignedTables own;
  own.view = view_planes(w, tables, level);
  own.view.table = {_mm512_xor_si512(own.view.table.v, _mm512_set1_epi8(-128))};
  uint8_t residuals[16];
  for (int r = 0; r < 16; ++r) residuals[r] = static_cast<uint8_t>(tables.residual_step * r + offset);
  own.residuals = make_table(residuals);
  switch (level) {
    case 2:
      return gemm_amx_level<2>(own, x, tokens, row_begin, row_end, y, y_stride);
    case 3:
      return gemm_amx_level<3>(own, x, tokens, row_begin, row_end, y, y_stride);
    case 4:
      return gemm_amx_level<4>(own, x, tokens, row_begin, row_end, y, y_stride);
    case 8:
      return gemm_amx_level<8>(own, x, tokens, row_begin, row_end, y, y_stride);
  }
}

}  // namespace moestro

#if defined(__clang__)
#pragma clang attribute pop
#endif
#include "native/kernels/simd/end.h"
#endif
