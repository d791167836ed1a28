// Bit planes to weights, one step of a tile (64 bytes: 16 rows x 4 columns) at a time. Slots and codes: formats.h.
//
// The index into the table is put together as  bits 0-1: the two bits of the base, bit 2: third bit, bit 3: fourth bit,
// because adding a plane is then one masked addition; the table is permuted to match when a call starts.
#pragma once
#include "native/kernels/simd/q8_tiles.h"

namespace moestro {
namespace {

struct PlaneView {
  const uint8_t* slots[8];
  const uint8_t* group_scales;
  const uint16_t* row_scales;
  int groups;  // of 32 columns
  int residual_step, residual_offset;
  Table table;
};

MOESTRO_INLINE PlaneView view_planes(const PlaneMatrix& w, const PlaneTables& tables, int level) {
  uint8_t entries[16];
  for (int i = 0; i < 16; ++i) {
    const int base = i & 3, third = (i >> 2) & 1, fourth = i >> 3;
    if (level == 2) {
      entries[i] = tables.t2[base];  // whatever bits 2 and 3 hold
    } else if (level == 3) {
      entries[i] = tables.t3[base << 1 | third];
    } else {
      entries[i] = tables.t4[base << 2 | third << 1 | fourth];
    }
  }
  PlaneView view;
  for (int s = 0; s < 8; ++s) view.slots[s] = w.slots[s];
  view.group_scales = w.group_scales;
  view.row_scales = w.row_scales;
  view.groups = w.cols / kGroup;
  view.residual_step = tables.residual_step;
  view.residual_offset = tables.residual_offset;
  view.table = make_table(entries);
  return view;
}

// At level 2 the neighbour's bits may stay in bits 2 and 3 of the index: the table repeats there.
template <int kLevel, int kStep>
MOESTRO_INLINE Weights decode_step(const PlaneView& view, size_t tile) {
  constexpr int kMask = kLevel == 2 ? 15 : 3;
  const size_t at = tile * kBitTileBytes;
  Bytes64 index = field<2 * (kStep % 4), kMask>(load_bytes(view.slots[kStep / 4] + at));
  if constexpr (kLevel >= 3) index = add_where<4>(index, view.slots[2] + at + 8 * kStep);
  if constexpr (kLevel >= 4) index = add_where<8>(index, view.slots[3] + at + 8 * kStep);
  return lookup(view.table, index);
}

template <int kStep>
MOESTRO_INLINE Bytes64 residual_step(const PlaneView& view, size_t tile) {
  return field<4 * (kStep % 2), 15>(load_bytes(view.slots[4 + kStep / 2] + tile * kBitTileBytes));
}

// What the sums of `row` .. `row` + 15 are multiplied with at the end; level 8 counts in half units.
template <int kLevel>
MOESTRO_INLINE F32x16 final_scales(const PlaneView& view, int row) {
  const F32x16 scales = load_bf16(view.row_scales + row);
  return kLevel == 8 ? mul(scales, set1(0.5f)) : scales;
}

// A call walks up to nine streams, more than the hardware follows across pages. Each is asked for some tiles ahead, a
// run of lines of one stream after a run of the next: DRAM gives runs of one page faster than lines in turn. Measured:
// runs of 8, at level 8 of 4, and 24 or 16 tiles ahead. Beyond `end` nothing is asked for: it is another thread's.
template <int kLevel>
constexpr size_t kPrefetchRun = kLevel == 8 ? 4 : 8;
template <int kLevel>
constexpr size_t kPrefetchAhead = kLevel == 8 ? 16 : 24;
template <int kLevel>
MOESTRO_INLINE void prefetch_tile(const PlaneView& view, size_t tile, size_t end) {
  constexpr size_t kRun = kPrefetchRun<kLevel>, kAhead = kPrefetchAhead<kLevel>;
  const size_t in_run = tile % kRun, ahead = tile - in_run + kAhead;
  if (ahead >= end) return;
#pragma GCC unroll 8
  for (int i = 0; i < kLevel; ++i) {
    const size_t line = kLevel * in_run + i;
    prefetch(view.slots[line / kRun] + (ahead + line % kRun) * kBitTileBytes);
  }
  if (tile % 4 == 0) prefetch(view.group_scales + (tile + 2 * kAhead) * kScaleTileBytes);
}

// The first tiles of [begin, end), for which prefetch_tile comes too late.
template <int kLevel>
MOESTRO_INLINE void prefetch_first(const PlaneView& view, size_t begin, size_t end) {
  constexpr size_t kAhead = kPrefetchAhead<kLevel>;
  for (size_t i = 0; i < kAhead; ++i) {
    for (int slot = 0; slot < kLevel && begin + i < end; ++slot) {
      prefetch(view.slots[slot] + (begin + i) * kBitTileBytes);
    }
  }
  for (size_t i = 0; i < 2 * kAhead; i += 4) prefetch(view.group_scales + (begin + i) * kScaleTileBytes);
}

// The lines of a tile that the next panel will hold: its first use is thousands of cycles away.
template <int kLevel>
MOESTRO_INLINE void prefetch_panel(const PlaneView& view, size_t tile) {
#pragma GCC unroll 8
  for (int slot = 0; slot < kLevel; ++slot) prefetch(view.slots[slot] + tile * kBitTileBytes);
  if (tile % 4 == 0) prefetch(view.group_scales + tile * kScaleTileBytes);
}

// 2 a + step b + offset sum(q): the integer of level 8, in half units of its scale.
MOESTRO_INLINE I32x16 join_residual(I32x16 codes, I32x16 residual, const PlaneView& view, int32_t q_sum) {
  const I32x16 stepped = mul_i32(residual, set1_i32(view.residual_step));
  return add_i32(add_i32(codes, codes), add_i32(stepped, set1_i32(view.residual_offset * q_sum)));
}

}  // namespace
}  // namespace moestro
