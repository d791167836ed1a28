// Bit planes to weights, one step of a tile (64 bytes: 16 rows x 4 columns) at a time. Slots and codes: formats.h.
// How codes are put together and looked up depends on what the lanes can do: codes_shuffled.h or codes_permuted.h.
#pragma once
#include "native/kernels/simd/q8_tiles.h"
#if defined(MOESTRO_PERMUTES_BYTES)
#include "native/kernels/gemm_q8_planes/codes_permuted.h"
#else
#include "native/kernels/gemm_q8_planes/codes_shuffled.h"
#endif

namespace moestro {
namespace {

// See prefetch_tile.
MOESTRO_INLINE bool prefetches_in_runs() {
#if defined(__x86_64__)
  return !__builtin_cpu_is("amd");
#else
  return true;
#endif
}

struct PlaneView {
  const uint8_t* slots[8];
  const uint8_t* group_scales;
  const uint16_t* row_scales;
  const uint8_t* next_slots[8];
  const uint8_t* next_scales;
  int rows, groups;  // groups of 32 columns
  int residual_step, residual_offset;
  bool in_runs;  // how prefetch_tile asks
  CodeTable table;
};

MOESTRO_INLINE PlaneView view_planes(const PlaneMatrix& w, const PlaneTables& tables, int level) {
  PlaneView view;
  for (int s = 0; s < 8; ++s) {
    view.slots[s] = w.slots[s];
    view.next_slots[s] = w.next_slots[s];
  }
  view.next_scales = w.next_scales;
  view.group_scales = w.group_scales;
  view.row_scales = w.row_scales;
  view.rows = w.rows;
  view.groups = w.cols / kGroup;
  view.residual_step = tables.residual_step;
  view.residual_offset = tables.residual_offset;
  view.in_runs = prefetches_in_runs();
  view.table = level == 2   ? make_code_table<2>(tables.t2)
               : level == 3 ? make_code_table<3>(tables.t3)
                            : make_code_table<4>(tables.t4);
  return view;
}

// The codes of a tile, of which decode_step looks up a step.
template <int kLevel>
MOESTRO_INLINE auto tile_codes(const PlaneView& view, size_t tile) {
  return load_codes<(kLevel < 4 ? kLevel : 4)>(view.slots, tile);
}
template <int kStep, typename Codes>
MOESTRO_INLINE Weights decode_step(const PlaneView& view, const Codes& codes) {
  return lookup_step<kStep>(view.table, codes);
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

// A call walks up to nine streams, more than the hardware follows across pages, so lines are asked for ahead. Beyond
// `end` lies what another thread reads: only in turn, what this one reads next is asked for instead, if it is known.
// How, differs by processor:
//
//   in runs   the tiles of a run take turns, tile i asks for all lines of slot i: DRAM gives runs of one page faster
//             than lines in turn. Best on Xeons
//   in turn   each tile asks for one line of every slot; of level 8, whose streams the hardware follows better alone,
//             for scales only, but with one token see direct_block_in_passes. Best on Zen 5
constexpr size_t kPrefetchRun = 8;
template <int kLevel>
constexpr size_t kPrefetchAhead = kLevel == 8 ? 16 : 24;
// In turn: some 4 KiB of weights, which are more tiles at fewer bits.
template <int kLevel>
constexpr size_t kTurnsAhead = kLevel == 2   ? 64
                               : kLevel == 3 ? 48
                                             : kPrefetchAhead<kLevel>;

// Lines `tile` of `count` slots from `first` on: of the next product where this one ends before.
MOESTRO_INLINE void prefetch_slots(const PlaneView& view, int first, int count, size_t tile, size_t end) {
  if (tile < end) {
#pragma GCC unroll 8
    for (int slot = first; slot < first + count; ++slot) prefetch(view.slots[slot] + tile * kBitTileBytes);
  } else if (view.next_scales != nullptr) {
#pragma GCC unroll 8
    for (int slot = first; slot < first + count; ++slot) {
      prefetch(view.next_slots[slot] + (tile - end) * kBitTileBytes);
    }
  }
}

MOESTRO_INLINE void prefetch_scales(const PlaneView& view, size_t tile, size_t end) {
  if (tile < end) {
    prefetch(view.group_scales + tile * kScaleTileBytes);
  } else if (view.next_scales != nullptr) {
    prefetch(view.next_scales + (tile - end) * kScaleTileBytes);
  }
}

template <int kLevel>
MOESTRO_INLINE void prefetch_tile(const PlaneView& view, size_t tile, size_t end) {
  if (!view.in_runs) {
    constexpr size_t kTurns = kTurnsAhead<kLevel>;
    if constexpr (kLevel < 8) prefetch_slots(view, 0, kLevel, tile + kTurns, end);
    if (tile % 4 == 0) prefetch_scales(view, tile + 2 * kTurns, end);
    return;
  }
  constexpr size_t kAhead = kPrefetchAhead<kLevel>;
  const size_t slot = tile % kPrefetchRun, ahead = tile - slot + kAhead;
  if (slot >= kLevel || ahead >= end) return;
  const uint8_t* const lines = view.slots[slot] + ahead * kBitTileBytes;
#pragma GCC unroll 8
  for (size_t i = 0; i < kPrefetchRun; ++i) prefetch(lines + i * kBitTileBytes);
  if (slot == 0) {
    const uint8_t* const scales = view.group_scales + (ahead + kAhead) * kScaleTileBytes;
    for (size_t i = 0; i < kPrefetchRun; i += 4) prefetch(scales + i * kScaleTileBytes);
  }
}

// The first tiles of [begin, end), for which prefetch_tile comes too late.
template <int kLevel>
MOESTRO_INLINE void prefetch_first(const PlaneView& view, size_t begin, size_t end) {
  const size_t ahead = view.in_runs ? kPrefetchAhead<kLevel> : kTurnsAhead<kLevel>;
  for (size_t i = 0; i < ahead; ++i) {
    for (int slot = 0; slot < kLevel && begin + i < end; ++slot) {
      prefetch(view.slots[slot] + (begin + i) * kBitTileBytes);
    }
  }
  for (size_t i = 0; i < 2 * ahead; i += 4) prefetch(view.group_scales + (begin + i) * kScaleTileBytes);
}

// Which lines of the next panel to ask for: slots [slot, slots_end), scales beside slot 0.
struct Ahead {
  size_t tile;
  int slot, slots_end;
};

// The lines of a tile that the next panel will hold: its first use is thousands of cycles away.
MOESTRO_INLINE void prefetch_panel(const PlaneView& view, size_t tile, const Ahead& ahead) {
  for (int slot = ahead.slot; slot < ahead.slots_end; ++slot) prefetch(view.slots[slot] + tile * kBitTileBytes);
  if (ahead.slot == 0 && tile % 4 == 0) prefetch(view.group_scales + tile * kScaleTileBytes);
}

// 2 a + step b + offset sum(q): the integer of level 8, in half units of its scale.
MOESTRO_INLINE I32x16 join_residual(I32x16 codes, I32x16 residual, const PlaneView& view, int32_t q_sum) {
  const I32x16 stepped = mul_i32(residual, set1_i32(view.residual_step));
  return add_i32(add_i32(codes, codes), add_i32(stepped, set1_i32(view.residual_offset * q_sum)));
}

}  // namespace
}  // namespace moestro
