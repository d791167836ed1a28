// Codes of a whole tile by transposing bits, their weights by a permutation of 64 bytes: simd/avx512vbmi.h.
//
// The base holds four steps in the bit pairs of a byte. A slot of one bit each has the bits of eight weights in a byte,
// 8 bytes a step; its bytes are put in such an order (kThirdSteps, kFourthSteps) that transposing 8 bytes as a matrix
// of bits gives each weight a byte with its bits of all eight steps. Half a tile, steps 4h .. 4h + 3, is then two
// registers with two codes in each byte, in its lower and its upper half:
//
//   even  bits 0-1 base, 2-3 third and fourth bit of step 0     4-5 base, 6-7 third and fourth bit of step 2
//   odd   bits 0-1 third and fourth bit, 2-3 base of step 1     4-5 third and fourth bit, 6-7 base of step 3
//
// where third and fourth change places in the second half: bits come from one slot where the other's are not wanted, so
// one choice of bits joins them. A lookup takes six bits, so tables repeat and nothing has to be masked out.
#pragma once
#include "native/kernels/simd/q8_tiles.h"

namespace moestro {
namespace {

// Bit b of a transposed byte is that of step kThirdSteps[b], or kFourthSteps[b].
constexpr int kThirdSteps[8] = {1, 5, 0, 4, 3, 7, 2, 6};
constexpr int kFourthSteps[8] = {5, 1, 4, 0, 7, 3, 6, 2};

struct alignas(64) Entries64 {
  uint8_t v[64];
};

// Byte 7 - b of 8-byte word k is byte k of step steps[b].
constexpr Entries64 order_of(const int* steps) {
  Entries64 order{};
  for (int k = 0; k < 8; ++k) {
    for (int b = 0; b < 8; ++b) order.v[8 * k + 7 - b] = static_cast<uint8_t>(8 * steps[b] + k);
  }
  return order;
}

// Which of the tables a step is looked up in: for level 2 by where the base stands, else by half and parity.
template <int kLevel, int kStep>
constexpr int kTableOfStep = kLevel == 2 ? (kStep % 4 == 3 ? 1 : kStep % 4) : 2 * (kStep / 4) + kStep % 2;

// The top kLevel bits of the code at each of 64 indices into table `which`.
constexpr Entries64 codes_of(int level, int which) {
  Entries64 codes{};
  for (int i = 0; i < 64; ++i) {
    const bool is_odd = which % 2 != 0;
    const int base = level == 2 ? i >> (2 * which) & 3 : (is_odd ? i >> 2 : i) & 3;
    const int others = is_odd ? i & 3 : i >> 2 & 3;
    const int third = which < 2 ? others & 1 : others >> 1, fourth = which < 2 ? others >> 1 : others & 1;
    codes.v[i] = static_cast<uint8_t>((base << 2 | third << 1 | fourth) >> (4 - level));
  }
  return codes;
}

struct CodeTable {
  Table64 of[4];
};

template <int kLevel, int kWhich>
MOESTRO_INLINE Table64 make_table64(const uint8_t* values) {
  static constexpr Entries64 kCodes = codes_of(kLevel, kWhich);
  return {lookup(make_table(values), load_bytes(kCodes.v)).v};
}

// `values` [16] by the top kLevel bits of a code.
template <int kLevel>
MOESTRO_INLINE CodeTable make_code_table(const uint8_t* values) {
  return {{make_table64<kLevel, 0>(values), make_table64<kLevel, 1>(values), make_table64<kLevel, 2>(values),
           make_table64<kLevel, 3>(values)}};
}

// Two steps a byte; at level 2 `even` holds all four.
template <int kLevel>
struct TileCodes {
  Bytes64 even[2], odd[2];
};

template <const int* kSteps>
MOESTRO_INLINE Bytes64 transpose_slot(const uint8_t* slot) {
  static constexpr Entries64 kOrder = order_of(kSteps);
  return transpose_bits(permute(load_bytes(kOrder.v), load_bytes(slot)));
}

template <int kLevel>
MOESTRO_INLINE TileCodes<kLevel> load_codes(const uint8_t* const* slots, size_t tile) {
  const size_t at = tile * kBitTileBytes;
  const Bytes64 base[2] = {load_bytes(slots[0] + at), load_bytes(slots[1] + at)};
  if constexpr (kLevel == 2) {
    return {{base[0], base[1]}, {base[0], base[1]}};
  } else {
    const Bytes64 third = transpose_slot<kThirdSteps>(slots[2] + at);
    Bytes64 others[2] = {third, third};
    if constexpr (kLevel == 4) {
      const Bytes64 fourth = transpose_slot<kFourthSteps>(slots[3] + at);
      others[0] = choose_bits<0x55>(third, fourth);
      others[1] = choose_bits<0x55>(fourth, third);
    }
    return {{choose_bits<0x33>(base[0], others[0]), choose_bits<0x33>(base[1], others[1])},
            {choose_bits<0x33>(others[0], base[0]), choose_bits<0x33>(others[1], base[1])}};
  }
}

template <int kStep, int kLevel>
MOESTRO_INLINE Weights lookup_step(const CodeTable& table, const TileCodes<kLevel>& codes) {
  constexpr int kHalf = kStep / 4, kPlace = kStep % 4;
  const Bytes64 both = kPlace % 2 == 0 || kLevel == 2 ? codes.even[kHalf] : codes.odd[kHalf];
  constexpr bool kIsUpper = kLevel == 2 ? kPlace == 3 : kPlace >= 2;
  return lookup64(table.of[kTableOfStep<kLevel, kStep>], kIsUpper ? upper_half(both) : both);
}

}  // namespace
}  // namespace moestro
