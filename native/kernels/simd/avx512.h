// The 16 lanes of simd/scalar.h in one AVX-512 register. Needs F, BW, DQ, VL and VNNI; see scalar.h for what each
// function means. Everything after this header is compiled for that set; simd/end.h closes it.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
// GCC 12's own intrinsics start from a register that is undefined on purpose, and GCC 12 warns of it (its bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#define MOESTRO_INLINE inline __attribute__((always_inline))

namespace moestro {
namespace {

struct F32x16 {
  __m512 v;
};
struct I32x16 {
  __m512i v;
};

// Floats.
MOESTRO_INLINE F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
MOESTRO_INLINE void store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
MOESTRO_INLINE F32x16 set1(float x) { return {_mm512_set1_ps(x)}; }
MOESTRO_INLINE F32x16 add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
MOESTRO_INLINE F32x16 sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
MOESTRO_INLINE F32x16 mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
MOESTRO_INLINE F32x16 div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
MOESTRO_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
MOESTRO_INLINE F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
MOESTRO_INLINE F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
MOESTRO_INLINE F32x16 abs(F32x16 a) { return {_mm512_abs_ps(a.v)}; }
MOESTRO_INLINE F32x16 negate(F32x16 a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
MOESTRO_INLINE F32x16 zero_where_less(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ), c.v)};
}
MOESTRO_INLINE uint32_t at_least(F32x16 a, F32x16 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
MOESTRO_INLINE float sqrt1(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

MOESTRO_INLINE float reduce_add(F32x16 a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
MOESTRO_INLINE float reduce_max(F32x16 a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
// Each round adds two rows into one register, halves of what is left of a row together:
//   t[i]   128-bit lanes  i.A     i.B     i+8.A   i+8.B      where row i = [A B] after the first addition
//   u[i]                  i       i+8     i+4     i+12       four sums each
//   v[i]                  i, i+2  ...                        two sums each
//   w                     0 2 1 3 | 8 10 9 11 | 4 6 5 7 | 12 14 13 15
MOESTRO_INLINE F32x16 reduce_add_rows(const F32x16* rows) {
  __m512 t[8], u[4], v[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[i] = _mm512_add_ps(_mm512_shuffle_f32x4(rows[i].v, rows[i + 8].v, 0x44),
                         _mm512_shuffle_f32x4(rows[i].v, rows[i + 8].v, 0xee));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    u[i] = _mm512_add_ps(_mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m512d a = _mm512_castps_pd(u[i]), b = _mm512_castps_pd(u[i + 2]);
    v[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  const __m512 w = _mm512_add_ps(_mm512_shuffle_ps(v[0], v[1], 0x88), _mm512_shuffle_ps(v[0], v[1], 0xdd));
  const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
  return {_mm512_permutexvar_ps(order, w)};
}

// Conversions.
MOESTRO_INLINE I32x16 round_to_int(F32x16 a) {
  const __m512 shift = _mm512_set1_ps(12582912.0f);
  return {_mm512_sub_epi32(_mm512_castps_si512(_mm512_add_ps(a.v, shift)), _mm512_castps_si512(shift))};
}
MOESTRO_INLINE F32x16 to_float(I32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
MOESTRO_INLINE F32x16 pow2(I32x16 a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(a.v, _mm512_set1_epi32(127)), 23))};
}
MOESTRO_INLINE __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
MOESTRO_INLINE __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
MOESTRO_INLINE F32x16 load_f16(const uint16_t* p) { return {_mm512_cvtph_ps(load_256(p))}; }
MOESTRO_INLINE void store_f16(uint16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
MOESTRO_INLINE F32x16 load_bf16(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_256(p)), 16))};
}
MOESTRO_INLINE F32x16 load_i8(const int8_t* p) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_128(p)))}; }
MOESTRO_INLINE void store_i8(int8_t* p, I32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
// The byte sign-extended and shifted left by 19 holds the sign in bits 26..31 and exponent and mantissa below them.
// OR sets the four exponent bits of 2^(e - 7) (120 << 23), AND clears bit 30: one ternary operation, (a | b) & c.
MOESTRO_INLINE F32x16 load_e3m4(const uint8_t* p) {
  const __m512i a = _mm512_slli_epi32(_mm512_cvtepi8_epi32(load_128(p)), 19);
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(a, _mm512_set1_epi32(120 << 23),
                                                        _mm512_set1_epi32(static_cast<int>(0xbfffffff)), 0xa8))};
}

// Integers.
MOESTRO_INLINE I32x16 set1_i32(int32_t x) { return {_mm512_set1_epi32(x)}; }
MOESTRO_INLINE I32x16 add_i32(I32x16 a, I32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
MOESTRO_INLINE I32x16 mul_i32(I32x16 a, I32x16 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
MOESTRO_INLINE int32_t reduce_add_i32(I32x16 a) { return _mm512_reduce_add_epi32(a.v); }

// One step of a tile: 64 bytes, byte 4 r + c is row r, column c: one 32-bit lane a row.
struct Bytes64 {
  __m512i v;
};
// vpdpbusd multiplies unsigned weights with signed activations, so weights stay as stored, 128 too high.
struct Weights {
  __m512i v;
};
constexpr int kWeightBias = 128;
constexpr int kTokensAtOnce = 8;
constexpr int kFloatsAtOnce = 16;
constexpr int kRowTilesAtOnce = 2;

struct Table {
  __m512i v;
};
MOESTRO_INLINE Table make_table(const uint8_t* entries) { return {_mm512_broadcast_i32x4(load_128(entries))}; }
MOESTRO_INLINE Bytes64 load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
MOESTRO_INLINE void store_bytes(uint8_t* p, Bytes64 a) { _mm512_storeu_si512(p, a.v); }
template <int kShift, int kMask>
MOESTRO_INLINE Bytes64 field(Bytes64 a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, kShift), _mm512_set1_epi8(kMask))};
}
template <int kValue>
MOESTRO_INLINE Bytes64 add_where(Bytes64 a, const uint8_t* bits) {
  uint64_t mask;
  std::memcpy(&mask, bits, 8);
  return {_mm512_mask_add_epi8(a.v, mask, a.v, _mm512_set1_epi8(kValue))};
}
template <int kShift>
MOESTRO_INLINE Bytes64 add_high_bits(Bytes64 low, Bytes64 high) {
  const __m512i moved =
      kShift < 4 ? _mm512_slli_epi16(high.v, kShift < 4 ? 4 - kShift : 0) : _mm512_srli_epi16(high.v, kShift - 4);
  return {_mm512_or_si512(low.v, _mm512_and_si512(moved, _mm512_set1_epi8(0x30)))};
}
template <int kValue>
MOESTRO_INLINE Bytes64 add_to_all(Bytes64 a) {
  return {_mm512_add_epi8(a.v, _mm512_set1_epi8(kValue))};
}
MOESTRO_INLINE Weights lookup(Table table, Bytes64 index) { return {_mm512_shuffle_epi8(table.v, index.v)}; }
MOESTRO_INLINE Weights load_weights(const uint8_t* codes) { return {_mm512_loadu_si512(codes)}; }
MOESTRO_INLINE void store_weights(uint8_t* codes, Weights w) { _mm512_storeu_si512(codes, w.v); }
MOESTRO_INLINE __m512i broadcast4(const int8_t* q) {
  int32_t four;
  std::memcpy(&four, q, 4);
  return _mm512_set1_epi32(four);
}
MOESTRO_INLINE I32x16 dot4(I32x16 acc, Weights w, const int8_t* q) {
  return {_mm512_dpbusd_epi32(acc.v, w.v, broadcast4(q))};
}
// -kBias times a sum that fits 16 bits, as the lower of two 16-bit products: one instruction from memory.
template <int kBias>
MOESTRO_INLINE I32x16 start_dot(const int32_t* q_sum) {
  return {_mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_set1_epi32(-kBias & 0xffff), _mm512_set1_epi32(*q_sum))};
}
MOESTRO_INLINE I32x16 dot4_unsigned(I32x16 acc, Bytes64 w, const int8_t* q) {
  return {_mm512_dpbusd_epi32(acc.v, w.v, broadcast4(q))};
}
MOESTRO_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

}  // namespace
}  // namespace moestro
