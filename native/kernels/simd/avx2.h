// The 16 lanes of simd/scalar.h in two AVX2 registers, lanes 0-7 in `lo`. Needs AVX2, FMA and F16C; see scalar.h for
// what each function means. Everything after this header is compiled for that set; simd/end.h closes it.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>

#define MOESTRO_INLINE inline __attribute__((always_inline))

namespace moestro {
namespace {

struct F32x16 {
  __m256 lo, hi;
};
struct I32x16 {
  __m256i lo, hi;
};

// Floats.
MOESTRO_INLINE F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
MOESTRO_INLINE void store(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
MOESTRO_INLINE F32x16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
MOESTRO_INLINE F32x16 add(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
MOESTRO_INLINE F32x16 sub(F32x16 a, F32x16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
MOESTRO_INLINE F32x16 mul(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
MOESTRO_INLINE F32x16 div(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
MOESTRO_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
MOESTRO_INLINE F32x16 max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
MOESTRO_INLINE F32x16 min(F32x16 a, F32x16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
MOESTRO_INLINE F32x16 abs(F32x16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
MOESTRO_INLINE F32x16 negate(F32x16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(sign, a.lo), _mm256_xor_ps(sign, a.hi)};
}
MOESTRO_INLINE F32x16 zero_where_less(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_and_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_NLT_UQ), c.lo),
          _mm256_and_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_NLT_UQ), c.hi)};
}
MOESTRO_INLINE uint32_t at_least(F32x16 a, F32x16 b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GE_OQ))) |
         static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_GE_OQ))) << 8;
}
MOESTRO_INLINE float sqrt1(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

MOESTRO_INLINE float reduce_add(F32x16 a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
MOESTRO_INLINE float reduce_max(F32x16 a) {
  const __m256 eight = _mm256_max_ps(a.lo, a.hi);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
// Eight rows to eight sums. Each round adds two rows into one register, halves of what is left of a row together:
//   u[i]   128-bit lanes  i           i+4           four sums each
//   v[i]                  i, i+2      i+4, i+6      two sums each
//   w                     0 2 1 3     4 6 5 7
MOESTRO_INLINE __m256 reduce_add_eight(const F32x16* rows) {
  __m256 u[4], v[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m256 a = _mm256_add_ps(rows[i].lo, rows[i].hi), b = _mm256_add_ps(rows[i + 4].lo, rows[i + 4].hi);
    u[i] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m256d a = _mm256_castps_pd(u[i]), b = _mm256_castps_pd(u[i + 2]);
    v[i] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
  }
  const __m256 w = _mm256_add_ps(_mm256_shuffle_ps(v[0], v[1], 0x88), _mm256_shuffle_ps(v[0], v[1], 0xdd));
  return _mm256_permute_ps(w, _MM_SHUFFLE(3, 1, 2, 0));
}
MOESTRO_INLINE F32x16 reduce_add_rows(const F32x16* rows) {
  return {reduce_add_eight(rows), reduce_add_eight(rows + 8)};
}

// Conversions.
MOESTRO_INLINE __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
MOESTRO_INLINE __m128i load_64(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
MOESTRO_INLINE __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
MOESTRO_INLINE I32x16 round_to_int(F32x16 a) {
  const __m256 shift = _mm256_set1_ps(12582912.0f);
  const __m256i base = _mm256_castps_si256(shift);
  return {_mm256_sub_epi32(_mm256_castps_si256(_mm256_add_ps(a.lo, shift)), base),
          _mm256_sub_epi32(_mm256_castps_si256(_mm256_add_ps(a.hi, shift)), base)};
}
MOESTRO_INLINE F32x16 to_float(I32x16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
MOESTRO_INLINE F32x16 pow2(I32x16 a) {
  const __m256i bias = _mm256_set1_epi32(127);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(a.lo, bias), 23)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(a.hi, bias), 23))};
}
MOESTRO_INLINE F32x16 load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(load_128(p)), _mm256_cvtph_ps(load_128(p + 8))};
}
MOESTRO_INLINE void store_f16(uint16_t* p, F32x16 a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.lo, kNearest));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.hi, kNearest));
}
MOESTRO_INLINE F32x16 load_bf16(const uint16_t* p) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_128(p)), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_128(p + 8)), 16))};
}
MOESTRO_INLINE F32x16 load_i8(const int8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_64(p))),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_64(p + 8)))};
}
MOESTRO_INLINE void store_i8(int8_t* p, I32x16 a) {
  // packs works within 128-bit lanes: words 0-3 8-11 | 4-7 12-15, put in order by the permutation of 64-bit pieces.
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), _MM_SHUFFLE(3, 1, 2, 0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
// The byte sign-extended and shifted left by 19 holds the sign in bits 26..31 and exponent and mantissa below them.
// OR sets the four exponent bits of 2^(e - 7) (120 << 23), AND clears bit 30.
MOESTRO_INLINE __m256 decode_e3m4(__m128i bytes) {
  const __m256i a = _mm256_slli_epi32(_mm256_cvtepi8_epi32(bytes), 19);
  return _mm256_castsi256_ps(_mm256_and_si256(_mm256_or_si256(a, _mm256_set1_epi32(120 << 23)),
                                              _mm256_set1_epi32(static_cast<int>(0xbfffffff))));
}
MOESTRO_INLINE F32x16 load_e3m4(const uint8_t* p) { return {decode_e3m4(load_64(p)), decode_e3m4(load_64(p + 8))}; }

// Integers.
MOESTRO_INLINE I32x16 set1_i32(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
MOESTRO_INLINE I32x16 add_i32(I32x16 a, I32x16 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
MOESTRO_INLINE I32x16 mul_i32(I32x16 a, I32x16 b) {
  return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)};
}
MOESTRO_INLINE int32_t reduce_add_i32(I32x16 a) {
  const __m256i eight = _mm256_add_epi32(a.lo, a.hi);
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
  return _mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 1);
}

// One step of a tile: 64 bytes, byte 4 r + c is row r, column c: one 32-bit lane a row, rows 0-7 in `lo`.
struct Bytes64 {
  __m256i lo, hi;
};
// There is no 4-byte dot product here: |w| times q with w's sign goes through vpmaddubsw, whose pairs stay below
// 2 * 128 * 127 < 2^15 and so never saturate, then pairs are added. |w| is made once for all tokens.
struct Weights {
  __m256i lo, hi, abs_lo, abs_hi;
};
constexpr int kWeightBias = 0;
constexpr int kTokensAtOnce = 4;
constexpr int kFloatsAtOnce = 4;
constexpr int kRowTilesAtOnce = 1;

struct Table {
  __m256i v;
};
MOESTRO_INLINE __m256i flip_bias(__m256i a) { return _mm256_xor_si256(a, _mm256_set1_epi8(-128)); }
MOESTRO_INLINE Weights with_abs(__m256i lo, __m256i hi) { return {lo, hi, _mm256_abs_epi8(lo), _mm256_abs_epi8(hi)}; }
MOESTRO_INLINE Table make_table(const uint8_t* entries) {
  return {flip_bias(_mm256_broadcastsi128_si256(load_128(entries)))};
}
MOESTRO_INLINE Bytes64 load_bytes(const uint8_t* p) { return {load_256(p), load_256(p + 32)}; }
MOESTRO_INLINE void store_256(uint8_t* p, __m256i a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a); }
MOESTRO_INLINE void store_bytes(uint8_t* p, Bytes64 a) {
  store_256(p, a.lo);
  store_256(p + 32, a.hi);
}
template <int kShift, int kMask>
MOESTRO_INLINE Bytes64 field(Bytes64 a) {
  const __m256i mask = _mm256_set1_epi8(kMask);
  return {_mm256_and_si256(_mm256_srli_epi16(a.lo, kShift), mask),
          _mm256_and_si256(_mm256_srli_epi16(a.hi, kShift), mask)};
}
// 32 bits to 32 bytes: byte p takes byte p / 8 of the bits, keeps bit p % 8, and is compared with that bit.
MOESTRO_INLINE __m256i spread_bits(const uint8_t* bits, __m256i value) {
  int32_t word;
  std::memcpy(&word, bits, 4);
  const __m256i source = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(word), source);
  return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), value);
}
template <int kValue>
MOESTRO_INLINE Bytes64 add_where(Bytes64 a, const uint8_t* bits) {
  const __m256i value = _mm256_set1_epi8(kValue);
  return {_mm256_add_epi8(a.lo, spread_bits(bits, value)), _mm256_add_epi8(a.hi, spread_bits(bits + 4, value))};
}
template <int kShift>
MOESTRO_INLINE __m256i add_high_half(__m256i low, __m256i high) {
  const __m256i moved =
      kShift < 4 ? _mm256_slli_epi16(high, kShift < 4 ? 4 - kShift : 0) : _mm256_srli_epi16(high, kShift - 4);
  return _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi8(0x30)));
}
template <int kShift>
MOESTRO_INLINE Bytes64 add_high_bits(Bytes64 low, Bytes64 high) {
  return {add_high_half<kShift>(low.lo, high.lo), add_high_half<kShift>(low.hi, high.hi)};
}
template <int kValue>
MOESTRO_INLINE Bytes64 add_to_all(Bytes64 a) {
  const __m256i value = _mm256_set1_epi8(kValue);
  return {_mm256_add_epi8(a.lo, value), _mm256_add_epi8(a.hi, value)};
}
MOESTRO_INLINE Weights lookup(Table table, Bytes64 index) {
  return with_abs(_mm256_shuffle_epi8(table.v, index.lo), _mm256_shuffle_epi8(table.v, index.hi));
}
MOESTRO_INLINE Weights load_weights(const uint8_t* codes) {
  return with_abs(flip_bias(load_256(codes)), flip_bias(load_256(codes + 32)));
}
MOESTRO_INLINE void store_weights(uint8_t* codes, Weights w) {
  store_256(codes, flip_bias(w.lo));
  store_256(codes + 32, flip_bias(w.hi));
}
MOESTRO_INLINE __m256i broadcast4(const int8_t* q) {
  int32_t four;
  std::memcpy(&four, q, 4);
  return _mm256_set1_epi32(four);
}
MOESTRO_INLINE __m256i add_products(__m256i acc, __m256i unsigned_bytes, __m256i signed_bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
MOESTRO_INLINE I32x16 dot4(I32x16 acc, Weights w, const int8_t* q) {
  const __m256i x = broadcast4(q);
  return {add_products(acc.lo, w.abs_lo, _mm256_sign_epi8(x, w.lo)),
          add_products(acc.hi, w.abs_hi, _mm256_sign_epi8(x, w.hi))};
}
template <int kBias>
MOESTRO_INLINE I32x16 start_dot(const int32_t* q_sum) {
  return set1_i32(-kBias * *q_sum);
}
MOESTRO_INLINE I32x16 dot4_unsigned(I32x16 acc, Bytes64 w, const int8_t* q) {
  const __m256i x = broadcast4(q);
  return {add_products(acc.lo, w.lo, x), add_products(acc.hi, w.hi, x)};
}
MOESTRO_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

}  // namespace
}  // namespace moestro
