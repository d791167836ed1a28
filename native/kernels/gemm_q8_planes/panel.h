// A panel of decoded weights, for products with so many tokens that each weight is decoded once and used often.
#pragma once
#include "native/kernels/gemm_q8_planes/decode.h"

namespace moestro {
namespace {

// A panel of 32 tiles, of one row of tiles or of several side by side: 16 KiB of codes, at level 8 as much of
// residuals, 2 KiB of scales. Together they fit the 32 KiB of the smallest first level cache in use except at level 8,
// where they want 48 KiB, as newer ones have.
constexpr int kPanelTiles = 32;
struct Panel {
  alignas(64) uint8_t codes[kPanelTiles * kTileWeights];
  alignas(64) uint8_t residuals[kPanelTiles * kTileWeights];
  alignas(64) float scales[kPanelTiles * kTileRows];
};

template <int kLevel, int kStep, typename Codes>
MOESTRO_INLINE void panel_step(const PlaneView& view, const Codes& from, size_t tile, uint8_t* codes,
                               uint8_t* residuals) {
  store_weights(codes + 64 * kStep, decode_step<kStep>(view, from));
  if constexpr (kLevel == 8) store_bytes(residuals + 64 * kStep, residual_step<kStep>(view, tile));
}

// Group after group, of each the tiles of kRowTiles rows. `view` by value: bytes are stored here, which could otherwise
// be its own, and it would be loaded again after each.
template <int kLevel, int kRowTiles>
inline void fill_panel(const PlaneView view, size_t first_tile, int groups, Panel* panel) {
  for (int i = 0; i < groups * kRowTiles; ++i) {
    const size_t tile = first_tile + i / kRowTiles + static_cast<size_t>(i % kRowTiles) * view.groups;
    uint8_t* codes = panel->codes + static_cast<size_t>(i) * kTileWeights;
    uint8_t* residuals = panel->residuals + static_cast<size_t>(i) * kTileWeights;
    const auto from = tile_codes<kLevel>(view, tile);
    panel_step<kLevel, 0>(view, from, tile, codes, residuals);
    panel_step<kLevel, 1>(view, from, tile, codes, residuals);
    panel_step<kLevel, 2>(view, from, tile, codes, residuals);
    panel_step<kLevel, 3>(view, from, tile, codes, residuals);
    panel_step<kLevel, 4>(view, from, tile, codes, residuals);
    panel_step<kLevel, 5>(view, from, tile, codes, residuals);
    panel_step<kLevel, 6>(view, from, tile, codes, residuals);
    panel_step<kLevel, 7>(view, from, tile, codes, residuals);
    store(panel->scales + i * kTileRows, load_e3m4(view.group_scales + tile * kScaleTileBytes));
  }
}

}  // namespace
}  // namespace moestro
