// A panel of decoded weights, for products with so many tokens that each weight is decoded once and used often.
#pragma once
#include "native/kernels/gemm_q8_planes/decode.h"

namespace moestro {
namespace {

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

// `view` by value: bytes are stored here, which could otherwise be its own, and it would be loaded again after each.
template <int kLevel>
inline void fill_panel(const PlaneView view, size_t first_tile, int groups, Panel* panel) {
  for (int g = 0; g < groups; ++g) {
    const size_t tile = first_tile + g;
    uint8_t* codes = panel->codes + static_cast<size_t>(g) * kTileWeights;
    uint8_t* residuals = panel->residuals + static_cast<size_t>(g) * kTileWeights;
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

}  // namespace
}  // namespace moestro
