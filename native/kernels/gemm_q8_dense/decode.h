// Dense codes to weights, one step of a tile (64 bytes: 16 rows x 4 columns) at a time. Formats: formats.h.
#pragma once
#include "native/kernels/simd/q8_tiles.h"

namespace moestro {
namespace {

// A matrix with what its decoding needs in registers.
struct DenseView {
  const uint8_t* codes;
  const uint16_t* scales;
  const uint8_t* group_scales;
  const uint16_t* row_scales;
  int groups;   // of 32 columns
  Table table;  // 4 bits
};

MOESTRO_INLINE DenseView view_dense(const DenseMatrix& w) {
  uint8_t entries[16];
  for (int i = 0; i < 16; ++i) entries[i] = static_cast<uint8_t>(kDenseTable[i] + 128);
  return {w.codes, w.scales, w.group_scales, w.row_scales, w.cols / kGroup, make_table(entries)};
}

template <int kBits>
constexpr size_t kCodeTileBytes = kBits * kBitTileBytes;

// What a decoded byte has too much. 6 bits stay unsigned: every variant multiplies small unsigned bytes fastest.
template <int kBits>
constexpr int kDecodedBias = kBits == 6 ? 32 : kWeightBias;

// One step of the tile whose codes start at `codes`: Bytes64 of code values for 6 bits, Weights for others.
template <int kBits, int kStep>
MOESTRO_INLINE auto decode_step(const DenseView& view, const uint8_t* codes) {
  if constexpr (kBits == 8) {
    return load_weights(codes + 64 * kStep);
  } else {
    const Bytes64 low = field<4 * (kStep % 2), 15>(load_bytes(codes + 64 * (kStep / 2)));
    if constexpr (kBits == 6) {
      return add_high_bits<2 * (kStep % 4)>(low, load_bytes(codes + 64 * (4 + kStep / 4)));
    } else {
      return lookup(view.table, low);
    }
  }
}

MOESTRO_INLINE I32x16 dot4_decoded(I32x16 acc, Weights w, const int8_t* q) { return dot4(acc, w, q); }
MOESTRO_INLINE I32x16 dot4_decoded(I32x16 acc, Bytes64 w, const int8_t* q) { return dot4_unsigned(acc, w, q); }

// To the stored form of load_weights, 128 too high.
template <int kBits>
MOESTRO_INLINE void store_decoded(uint8_t* out, Weights w) {
  store_weights(out, w);
}
template <int kBits>
MOESTRO_INLINE void store_decoded(uint8_t* out, Bytes64 w) {
  store_bytes(out, add_to_all<128 - kDecodedBias<kBits>>(w));
}

// Group scales of one tile.
template <int kBits>
MOESTRO_INLINE F32x16 tile_scales(const DenseView& view, size_t tile) {
  if constexpr (kBits == 4) return load_e3m4(view.group_scales + tile * kScaleTileBytes);
  return load_f16(view.scales + tile * kTileRows);
}

// Lines are asked for this far ahead of their use, into the second level cache: a core has more of them in flight than
// the first level takes. The rest of the way is short enough for out-of-order loads.
constexpr size_t kPrefetchBytes = 4096;
MOESTRO_INLINE void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }

template <int kBits>
MOESTRO_INLINE void prefetch_tile(const DenseView& view, size_t tile) {
  const uint8_t* codes = view.codes + tile * kCodeTileBytes<kBits> + kPrefetchBytes;
#pragma GCC unroll 8
  for (int line = 0; line < kBits; ++line) prefetch_far(codes + 64 * line);
  // A tile's scales fill a part of a line: one in two tiles, or in four, comes to the next.
  constexpr size_t kTilesAhead = 2 * kPrefetchBytes / kCodeTileBytes<kBits>;
  if constexpr (kBits == 4) {
    if (tile % 4 == 0) prefetch_far(view.group_scales + (tile + kTilesAhead) * kScaleTileBytes);
  } else {
    if (tile % 2 == 0) prefetch_far(view.scales + (tile + kTilesAhead) * kTileRows);
  }
}

// One token walks this many strips of rows side by side, each a stream of its own, whose lines go to the first level
// cache: 4 bits cold gain a fifth to a third on a Zen 5 and a tenth on a Xeon over one stream into the second level.
// Scales are left to the hardware.
constexpr int kStrips = 4;
constexpr size_t kStripPrefetchBytes = 2048;
template <int kBits>
MOESTRO_INLINE void prefetch_strip(const uint8_t* codes) {
#pragma GCC unroll 8
  for (int line = 0; line < kBits; ++line) prefetch(codes + kStripPrefetchBytes + 64 * line);
}

// What the sums of `row` .. `row` + 15 still lack.
template <int kBits>
MOESTRO_INLINE F32x16 scale_rows(const DenseView& view, int row, F32x16 sums) {
  if constexpr (kBits == 4) return mul(sums, load_bf16(view.row_scales + row));
  return sums;
}

}  // namespace
}  // namespace moestro
