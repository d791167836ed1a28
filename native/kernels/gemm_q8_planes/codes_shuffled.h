// Codes of a tile by shifts, masks and masked additions, their weights by a byte shuffle: for every instruction set.
//
// The index into the table is put together as  bits 0-1: the two bits of the base, bit 2: third bit, bit 3: fourth bit,
// because adding a plane is then one masked addition; the table is permuted to match when a call starts.
#pragma once
#include "native/kernels/simd/q8_tiles.h"

namespace moestro {
namespace {

using CodeTable = Table;

// `values` by the top kLevel bits of a code.
template <int kLevel>
MOESTRO_INLINE CodeTable make_code_table(const uint8_t* values) {
  uint8_t entries[16];
  for (int i = 0; i < 16; ++i) {
    const int code = (i & 3) << 2 | (i >> 1 & 2) | i >> 3;
    entries[i] = values[code >> (4 - kLevel)];
  }
  return make_table(entries);
}

// Codes are put together step by step, from the slots themselves.
template <int kLevel>
struct TileCodes {
  const uint8_t* const* slots;
  size_t at;
};
template <int kLevel>
MOESTRO_INLINE TileCodes<kLevel> load_codes(const uint8_t* const* slots, size_t tile) {
  return {slots, tile * kBitTileBytes};
}

// At level 2 the neighbour's bits may stay in bits 2 and 3 of the index: the table repeats there.
template <int kStep, int kLevel>
MOESTRO_INLINE Weights lookup_step(const CodeTable& table, const TileCodes<kLevel>& codes) {
  constexpr int kMask = kLevel == 2 ? 15 : 3;
  Bytes64 index = field<2 * (kStep % 4), kMask>(load_bytes(codes.slots[kStep / 4] + codes.at));
  if constexpr (kLevel >= 3) index = add_where<4>(index, codes.slots[2] + codes.at + 8 * kStep);
  if constexpr (kLevel >= 4) index = add_where<8>(index, codes.slots[3] + codes.at + 8 * kStep);
  return lookup(table, index);
}

}  // namespace
}  // namespace moestro
