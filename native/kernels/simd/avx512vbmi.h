// The lanes of simd/avx512.h with the byte permutations of VBMI and the bit matrices of GFNI, which come together in
// every processor that has VNNI since Ice Lake and Zen 4. simd/end.h closes what avx512.h
// opened; a file closes what this adds before it.
#pragma once
#include "native/kernels/simd/avx512.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512vbmi,gfni"))), apply_to = function)
#else
#pragma GCC target("avx512vbmi,gfni")
#endif

// Says to decoders that lookup64 and what stands beside it are there.
#define MOESTRO_PERMUTES_BYTES 1

namespace moestro {
namespace {

// 64 entries; lookups take the low six bits of an index, whatever stands above them.
struct Table64 {
  __m512i v;
};
MOESTRO_INLINE Weights lookup64(Table64 table, Bytes64 index) { return {_mm512_permutexvar_epi8(index.v, table.v)}; }
MOESTRO_INLINE Bytes64 permute(Bytes64 order, Bytes64 bytes) { return {_mm512_permutexvar_epi8(order.v, bytes.v)}; }
// The bits of each byte moved down by four; what comes into the upper half is the neighbour's.
MOESTRO_INLINE Bytes64 upper_half(Bytes64 a) { return {_mm512_srli_epi16(a.v, 4)}; }
// kMask ? a : b, bit by bit.
template <int kMask>
MOESTRO_INLINE Bytes64 choose_bits(Bytes64 a, Bytes64 b) {
  return {_mm512_ternarylogic_epi32(a.v, b.v, _mm512_set1_epi8(static_cast<char>(kMask)), 0xe4)};
}
// Each 8 bytes as a matrix of bits, transposed: bit b of byte i is bit i of byte 7 - b.
MOESTRO_INLINE Bytes64 transpose_bits(Bytes64 a) {
  return {_mm512_gf2p8affine_epi64_epi8(_mm512_set1_epi64(static_cast<int64_t>(0x8040201008040201ull)), a.v, 0)};
}

}  // namespace
}  // namespace moestro
