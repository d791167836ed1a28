// The 16 lanes that every kernel is written over, in plain C++: the reference for simd/avx2.h and simd/avx512.h.
//
// A kernel's algorithm.h is compiled once with each of these three headers. All names are in an unnamed namespace, so
// that the linker never merges a function compiled for one instruction set into another's. The three agree bit for
// bit: fma rounds once everywhere, max(a, b) is a > b ? a : b as in maxps, sums over lanes use one tree.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#define MOESTRO_INLINE inline __attribute__((always_inline))

namespace moestro {
namespace {

struct F32x16 {
  float v[16];
};
struct I32x16 {
  int32_t v[16];
};

MOESTRO_INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
MOESTRO_INLINE float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Half precision by integer arithmetic, with the results of vcvtph2ps and vcvtps2ph (round half to even).
MOESTRO_INLINE float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t rest = half & 0x7fff;
  if (rest >= 0x7c00) return float_of(sign | 0x7f800000 | (rest > 0x7c00 ? 0x400000 : 0) | (rest & 0x3ff) << 13);
  if (rest < 0x400) return float_of(sign | bits_of(static_cast<float>(rest) * 0x1p-24f));
  return float_of(sign | ((rest << 13) + (112u << 23)));
}
MOESTRO_INLINE uint16_t float_to_half(float x) {
  const uint32_t sign = (bits_of(x) >> 16) & 0x8000;
  const uint32_t rest = bits_of(x) & 0x7fffffff;
  uint32_t half;
  if (rest > 0x7f800000) {
    half = 0x7e00 | ((rest >> 13) & 0x3ff);
  } else if (rest >= 0x477ff000) {  // 65520, half-way between the largest half and what would follow it
    half = 0x7c00;
  } else if (rest < 0x38800000) {  // below 2^-14: adding 0.5 rounds to units of 2^-24
    half = bits_of(float_of(rest) + 0.5f) - bits_of(0.5f);
  } else {
    half = (rest + 0xfff + ((rest >> 13) & 1) - (112u << 23)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

#define MOESTRO_LANES(type, expression) \
  type out;                             \
  for (int i = 0; i < 16; ++i) {        \
    out.v[i] = expression;              \
  }                                     \
  return out

// Floats.
MOESTRO_INLINE F32x16 load(const float* p) { MOESTRO_LANES(F32x16, p[i]); }
MOESTRO_INLINE void store(float* p, F32x16 a) { std::memcpy(p, a.v, sizeof a.v); }
MOESTRO_INLINE F32x16 set1(float x) { MOESTRO_LANES(F32x16, x); }
MOESTRO_INLINE F32x16 add(F32x16 a, F32x16 b) { MOESTRO_LANES(F32x16, a.v[i] + b.v[i]); }
MOESTRO_INLINE F32x16 sub(F32x16 a, F32x16 b) { MOESTRO_LANES(F32x16, a.v[i] - b.v[i]); }
MOESTRO_INLINE F32x16 mul(F32x16 a, F32x16 b) { MOESTRO_LANES(F32x16, a.v[i] * b.v[i]); }
MOESTRO_INLINE F32x16 div(F32x16 a, F32x16 b) { MOESTRO_LANES(F32x16, a.v[i] / b.v[i]); }
MOESTRO_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { MOESTRO_LANES(F32x16, std::fmaf(a.v[i], b.v[i], c.v[i])); }
MOESTRO_INLINE F32x16 max(F32x16 a, F32x16 b) { MOESTRO_LANES(F32x16, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
MOESTRO_INLINE F32x16 min(F32x16 a, F32x16 b) { MOESTRO_LANES(F32x16, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
MOESTRO_INLINE F32x16 abs(F32x16 a) { MOESTRO_LANES(F32x16, float_of(bits_of(a.v[i]) & 0x7fffffff)); }
MOESTRO_INLINE F32x16 negate(F32x16 a) { MOESTRO_LANES(F32x16, float_of(bits_of(a.v[i]) ^ 0x80000000)); }
// a < b ? 0 : c
MOESTRO_INLINE F32x16 zero_where_less(F32x16 a, F32x16 b, F32x16 c) {
  MOESTRO_LANES(F32x16, a.v[i] < b.v[i] ? 0.0f : c.v[i]);
}
// Bit i: a[i] >= b[i].
MOESTRO_INLINE uint32_t at_least(F32x16 a, F32x16 b) {
  uint32_t bits = 0;
  for (int i = 0; i < 16; ++i) bits |= static_cast<uint32_t>(a.v[i] >= b.v[i]) << i;
  return bits;
}
MOESTRO_INLINE float sqrt1(float x) { return std::sqrt(x); }

// Lanes are added as (0+8, 1+9, ...), (0+4, ...), (0+2, 1+3), (0+1).
MOESTRO_INLINE float reduce_add(F32x16 a) {
  for (int width = 8; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] + a.v[i + width];
  }
  return a.v[0];
}
MOESTRO_INLINE float reduce_max(F32x16 a) {
  for (int width = 8; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] > a.v[i + width] ? a.v[i] : a.v[i + width];
  }
  return a.v[0];
}
// Lane i is reduce_add(rows[i]).
MOESTRO_INLINE F32x16 reduce_add_rows(const F32x16 rows[16]) { MOESTRO_LANES(F32x16, reduce_add(rows[i])); }

// Conversions. round_to_int is half-to-even and wants |a| < 2^22: adding 1.5 * 2^23 leaves the integer in the low bits.
MOESTRO_INLINE I32x16 round_to_int(F32x16 a) {
  MOESTRO_LANES(I32x16, static_cast<int32_t>(bits_of(a.v[i] + 12582912.0f) - bits_of(12582912.0f)));
}
MOESTRO_INLINE F32x16 to_float(I32x16 a) { MOESTRO_LANES(F32x16, static_cast<float>(a.v[i])); }
// 2^a for a in [-126, 127]; infinity for 128.
MOESTRO_INLINE F32x16 pow2(I32x16 a) { MOESTRO_LANES(F32x16, float_of(static_cast<uint32_t>(a.v[i] + 127) << 23)); }
MOESTRO_INLINE F32x16 load_f16(const uint16_t* p) { MOESTRO_LANES(F32x16, half_to_float(p[i])); }
MOESTRO_INLINE void store_f16(uint16_t* p, F32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = float_to_half(a.v[i]);
}
MOESTRO_INLINE F32x16 load_bf16(const uint16_t* p) {
  MOESTRO_LANES(F32x16, float_of(static_cast<uint32_t>(p[i]) << 16));
}
MOESTRO_INLINE F32x16 load_i8(const int8_t* p) { MOESTRO_LANES(F32x16, static_cast<float>(p[i])); }
MOESTRO_INLINE void store_i8(int8_t* p, I32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}
// Group scales of formats.h: sign, 3 bits of exponent, 4 of mantissa, value (1 + m / 16) * 2^(e - 7).
MOESTRO_INLINE F32x16 load_e3m4(const uint8_t* p) {
  MOESTRO_LANES(F32x16, float_of(static_cast<uint32_t>(p[i] & 0x80) << 24 |
                                 ((static_cast<uint32_t>(p[i] & 0x7f) << 19) + (120u << 23))));
}

// Integers.
MOESTRO_INLINE I32x16 set1_i32(int32_t x) { MOESTRO_LANES(I32x16, x); }
MOESTRO_INLINE I32x16 add_i32(I32x16 a, I32x16 b) { MOESTRO_LANES(I32x16, a.v[i] + b.v[i]); }
MOESTRO_INLINE I32x16 mul_i32(I32x16 a, I32x16 b) { MOESTRO_LANES(I32x16, a.v[i] * b.v[i]); }
MOESTRO_INLINE int32_t reduce_add_i32(I32x16 a) {
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += a.v[i];
  return sum;
}

// One step of a tile: 64 bytes, 16 rows x 4 columns.
struct Bytes64 {
  uint8_t v[64];
};
// The same as weights ready for dot4: here signed bytes; kWeightBias is what a stored weight has too much.
struct Weights {
  int8_t v[64];
};
constexpr int kWeightBias = 0;
constexpr int kTokensAtOnce = 4;    // more would only make the compiler slow
constexpr int kFloatsAtOnce = 4;    // the same of F32x16, beside their operands
constexpr int kRowTilesAtOnce = 1;  // of a product with many tokens, where registers suffice for more than one

struct Table {
  uint8_t v[16];
};
MOESTRO_INLINE Table make_table(const uint8_t* entries) {
  Table table;
  std::memcpy(table.v, entries, 16);
  return table;
}
MOESTRO_INLINE Bytes64 load_bytes(const uint8_t* p) {
  Bytes64 out;
  std::memcpy(out.v, p, 64);
  return out;
}
MOESTRO_INLINE void store_bytes(uint8_t* p, Bytes64 a) { std::memcpy(p, a.v, 64); }
template <int kShift, int kMask>
MOESTRO_INLINE Bytes64 field(Bytes64 a) {
  for (uint8_t& byte : a.v) byte = (byte >> kShift) & kMask;
  return a;
}
// Adds kValue to byte p where bit p of the 64 bits at `bits` (little endian) is set.
template <int kValue>
MOESTRO_INLINE Bytes64 add_where(Bytes64 a, const uint8_t* bits) {
  for (int p = 0; p < 64; ++p) a.v[p] = static_cast<uint8_t>(a.v[p] + ((bits[p / 8] >> (p % 8)) & 1) * kValue);
  return a;
}
// low + 16 * (two bits of high from kShift on), for low below 16.
template <int kShift>
MOESTRO_INLINE Bytes64 add_high_bits(Bytes64 low, Bytes64 high) {
  for (int p = 0; p < 64; ++p) low.v[p] = static_cast<uint8_t>(low.v[p] | ((high.v[p] >> kShift) & 3) << 4);
  return low;
}
template <int kValue>
MOESTRO_INLINE Bytes64 add_to_all(Bytes64 a) {
  for (uint8_t& byte : a.v) byte = static_cast<uint8_t>(byte + kValue);
  return a;
}
MOESTRO_INLINE Weights lookup(Table table, Bytes64 index) {
  Weights out;
  for (int p = 0; p < 64; ++p) out.v[p] = static_cast<int8_t>(table.v[index.v[p] & 15] - 128);
  return out;
}
// Weights from and to the stored form, code = weight + 128.
MOESTRO_INLINE Weights load_weights(const uint8_t* codes) {
  Weights out;
  for (int p = 0; p < 64; ++p) out.v[p] = static_cast<int8_t>(codes[p] - 128);
  return out;
}
MOESTRO_INLINE void store_weights(uint8_t* codes, Weights w) {
  for (int p = 0; p < 64; ++p) codes[p] = static_cast<uint8_t>(w.v[p] + 128);
}
// acc[row] += sum over 4 columns of weight * q.
MOESTRO_INLINE I32x16 dot4(I32x16 acc, Weights w, const int8_t* q) {
  for (int row = 0; row < 16; ++row) {
    for (int c = 0; c < 4; ++c) acc.v[row] += w.v[row * 4 + c] * q[c];
  }
  return acc;
}
// What the products of a group of 32 columns start from, for weights kBias too high: *q_sum is the sum of its q.
template <int kBias>
MOESTRO_INLINE I32x16 start_dot(const int32_t* q_sum) {
  return set1_i32(-kBias * *q_sum);
}
// The same for unsigned bytes of at most 127.
MOESTRO_INLINE I32x16 dot4_unsigned(I32x16 acc, Bytes64 w, const int8_t* q) {
  for (int row = 0; row < 16; ++row) {
    for (int c = 0; c < 4; ++c) acc.v[row] += w.v[row * 4 + c] * q[c];
  }
  return acc;
}
MOESTRO_INLINE void prefetch(const void*) {}

#undef MOESTRO_LANES

}  // namespace
}  // namespace moestro
