// The 16 lanes of simd/scalar.h in four NEON registers, lanes 4 i to 4 i + 3 in v[i]. Needs AArch64 with the int8 dot
// product; see scalar.h for what each function means. Everything after this header is compiled for that set;
// simd/end.h closes it.
//
// fmax and fmin of NEON treat NaN unlike maxps and minps, so a comparison and a selection stand in their place. vfmaq
// rounds once; vmlaq, which may or may not, is not used.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include <arm_neon.h>

#define MOESTRO_INLINE inline __attribute__((always_inline))

namespace moestro {
namespace {

struct F32x16 {
  float32x4_t v[4];
};
struct I32x16 {
  int32x4_t v[4];
};

// `op` of one register each, four times.
#define MOESTRO_EACH_1(op, a)                          \
  {                                                    \
    { op(a.v[0]), op(a.v[1]), op(a.v[2]), op(a.v[3]) } \
  }
#define MOESTRO_EACH_2(op, a, b)                                                       \
  {                                                                                    \
    { op(a.v[0], b.v[0]), op(a.v[1], b.v[1]), op(a.v[2], b.v[2]), op(a.v[3], b.v[3]) } \
  }

// Floats.
MOESTRO_INLINE float32x4_t greater_of(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
MOESTRO_INLINE float32x4_t lesser_of(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
MOESTRO_INLINE F32x16 load(const float* p) {
  return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
MOESTRO_INLINE void store(float* p, F32x16 a) {
  vst1q_f32(p, a.v[0]);
  vst1q_f32(p + 4, a.v[1]);
  vst1q_f32(p + 8, a.v[2]);
  vst1q_f32(p + 12, a.v[3]);
}
MOESTRO_INLINE F32x16 set1(float x) { return {{vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)}}; }
MOESTRO_INLINE F32x16 add(F32x16 a, F32x16 b) { return MOESTRO_EACH_2(vaddq_f32, a, b); }
MOESTRO_INLINE F32x16 sub(F32x16 a, F32x16 b) { return MOESTRO_EACH_2(vsubq_f32, a, b); }
MOESTRO_INLINE F32x16 mul(F32x16 a, F32x16 b) { return MOESTRO_EACH_2(vmulq_f32, a, b); }
MOESTRO_INLINE F32x16 div(F32x16 a, F32x16 b) { return MOESTRO_EACH_2(vdivq_f32, a, b); }
MOESTRO_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {{vfmaq_f32(c.v[0], a.v[0], b.v[0]), vfmaq_f32(c.v[1], a.v[1], b.v[1]), vfmaq_f32(c.v[2], a.v[2], b.v[2]),
           vfmaq_f32(c.v[3], a.v[3], b.v[3])}};
}
MOESTRO_INLINE F32x16 max(F32x16 a, F32x16 b) { return MOESTRO_EACH_2(greater_of, a, b); }
MOESTRO_INLINE F32x16 min(F32x16 a, F32x16 b) { return MOESTRO_EACH_2(lesser_of, a, b); }
MOESTRO_INLINE F32x16 abs(F32x16 a) { return MOESTRO_EACH_1(vabsq_f32, a); }
MOESTRO_INLINE F32x16 negate(F32x16 a) { return MOESTRO_EACH_1(vnegq_f32, a); }
MOESTRO_INLINE float32x4_t zero_quarter(float32x4_t a, float32x4_t b, float32x4_t c) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(c), vcltq_f32(a, b)));
}
MOESTRO_INLINE F32x16 zero_where_less(F32x16 a, F32x16 b, F32x16 c) {
  return {{zero_quarter(a.v[0], b.v[0], c.v[0]), zero_quarter(a.v[1], b.v[1], c.v[1]),
           zero_quarter(a.v[2], b.v[2], c.v[2]), zero_quarter(a.v[3], b.v[3], c.v[3])}};
}
MOESTRO_INLINE uint32_t at_least(F32x16 a, F32x16 b) {
  const uint32x4_t places = {1, 2, 4, 8};
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) bits |= vaddvq_u32(vandq_u32(vcgeq_f32(a.v[i], b.v[i]), places)) << (4 * i);
  return bits;
}
MOESTRO_INLINE float sqrt1(float x) { return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0); }

// Lanes 0-3 of the tree after its first two rounds: (0+8)+(4+12), ...
MOESTRO_INLINE float32x4_t add_quarters(F32x16 a) {
  return vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
}
MOESTRO_INLINE float reduce_add(F32x16 a) {
  const float32x4_t four = add_quarters(a);
  return vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}
MOESTRO_INLINE float reduce_max(F32x16 a) {
  const float32x4_t four = greater_of(greater_of(a.v[0], a.v[2]), greater_of(a.v[1], a.v[3]));
  const float32x4_t two = greater_of(four, vextq_f32(four, four, 2));
  return vgetq_lane_f32(greater_of(two, vextq_f32(two, two, 1)), 0);
}
// Two rows a and b to [a0+a2 a1+a3 b0+b2 b1+b3].
MOESTRO_INLINE float32x4_t add_halves(float32x4_t a, float32x4_t b) {
  return vaddq_f32(vcombine_f32(vget_low_f32(a), vget_low_f32(b)), vcombine_f32(vget_high_f32(a), vget_high_f32(b)));
}
MOESTRO_INLINE float32x4_t reduce_add_four(const F32x16* rows) {
  return vpaddq_f32(add_halves(add_quarters(rows[0]), add_quarters(rows[1])),
                    add_halves(add_quarters(rows[2]), add_quarters(rows[3])));
}
MOESTRO_INLINE F32x16 reduce_add_rows(const F32x16* rows) {
  return {{reduce_add_four(rows), reduce_add_four(rows + 4), reduce_add_four(rows + 8), reduce_add_four(rows + 12)}};
}

// Conversions. Those between half and float belong to ARMv8.0; they keep denormals and NaN payloads as vcvtph2ps does.
MOESTRO_INLINE int32x4_t round_quarter(float32x4_t a) {
  const float32x4_t shift = vdupq_n_f32(12582912.0f);
  return vsubq_s32(vreinterpretq_s32_f32(vaddq_f32(a, shift)), vreinterpretq_s32_f32(shift));
}
MOESTRO_INLINE I32x16 round_to_int(F32x16 a) { return MOESTRO_EACH_1(round_quarter, a); }
MOESTRO_INLINE F32x16 to_float(I32x16 a) { return MOESTRO_EACH_1(vcvtq_f32_s32, a); }
MOESTRO_INLINE float32x4_t pow2_quarter(int32x4_t a) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(a, vdupq_n_s32(127)), 23));
}
MOESTRO_INLINE F32x16 pow2(I32x16 a) { return MOESTRO_EACH_1(pow2_quarter, a); }
MOESTRO_INLINE float32x4_t load_f16_quarter(const uint16_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
MOESTRO_INLINE F32x16 load_f16(const uint16_t* p) {
  return {{load_f16_quarter(p), load_f16_quarter(p + 4), load_f16_quarter(p + 8), load_f16_quarter(p + 12)}};
}
MOESTRO_INLINE uint16x8_t to_f16(float32x4_t a, float32x4_t b) {
  return vcombine_u16(vreinterpret_u16_f16(vcvt_f16_f32(a)), vreinterpret_u16_f16(vcvt_f16_f32(b)));
}
MOESTRO_INLINE void store_f16(uint16_t* p, F32x16 a) {
  vst1q_u16(p, to_f16(a.v[0], a.v[1]));
  vst1q_u16(p + 8, to_f16(a.v[2], a.v[3]));
}
MOESTRO_INLINE float32x4_t load_bf16_quarter(const uint16_t* p) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p)), 16));
}
MOESTRO_INLINE F32x16 load_bf16(const uint16_t* p) {
  return {{load_bf16_quarter(p), load_bf16_quarter(p + 4), load_bf16_quarter(p + 8), load_bf16_quarter(p + 12)}};
}
MOESTRO_INLINE I32x16 widen_i8(int8x16_t bytes) {
  const int16x8_t lo = vmovl_s8(vget_low_s8(bytes)), hi = vmovl_s8(vget_high_s8(bytes));
  return {{vmovl_s16(vget_low_s16(lo)), vmovl_s16(vget_high_s16(lo)), vmovl_s16(vget_low_s16(hi)),
           vmovl_s16(vget_high_s16(hi))}};
}
MOESTRO_INLINE F32x16 load_i8(const int8_t* p) { return to_float(widen_i8(vld1q_s8(p))); }
MOESTRO_INLINE void store_i8(int8_t* p, I32x16 a) {
  const int16x8_t lo = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  const int16x8_t hi = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
}
// The byte sign-extended and shifted left by 19 holds the sign in bits 26..31 and exponent and mantissa below them.
// OR sets the four exponent bits of 2^(e - 7) (120 << 23), BIC clears bit 30.
MOESTRO_INLINE float32x4_t decode_e3m4(int32x4_t byte) {
  const int32x4_t a = vorrq_s32(vshlq_n_s32(byte, 19), vdupq_n_s32(120 << 23));
  return vreinterpretq_f32_s32(vbicq_s32(a, vdupq_n_s32(1 << 30)));
}
MOESTRO_INLINE F32x16 load_e3m4(const uint8_t* p) {
  const I32x16 bytes = widen_i8(vreinterpretq_s8_u8(vld1q_u8(p)));
  return MOESTRO_EACH_1(decode_e3m4, bytes);
}

// Integers.
MOESTRO_INLINE I32x16 set1_i32(int32_t x) { return {{vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x)}}; }
MOESTRO_INLINE I32x16 add_i32(I32x16 a, I32x16 b) { return MOESTRO_EACH_2(vaddq_s32, a, b); }
MOESTRO_INLINE I32x16 mul_i32(I32x16 a, I32x16 b) { return MOESTRO_EACH_2(vmulq_s32, a, b); }
MOESTRO_INLINE int32_t reduce_add_i32(I32x16 a) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3])));
}

// One step of a tile: 64 bytes, byte 4 r + c is row r, column c: one 32-bit lane a row, rows 4 i to 4 i + 3 in v[i].
struct Bytes64 {
  uint8x16_t v[4];
};
// sdot multiplies signed bytes with signed bytes.
struct Weights {
  int8x16_t v[4];
};
constexpr int kWeightBias = 0;
constexpr int kTokensAtOnce = 4;  // 16 accumulators, 4 registers of weights and what decodes them: 32 registers
constexpr int kFloatsAtOnce = 4;
constexpr int kRowTilesAtOnce = 1;

struct Table {
  int8x16_t v;
};
MOESTRO_INLINE int8x16_t from_code(uint8x16_t code) { return vreinterpretq_s8_u8(veorq_u8(code, vdupq_n_u8(0x80))); }
MOESTRO_INLINE uint8x16_t to_code(int8x16_t weight) { return veorq_u8(vreinterpretq_u8_s8(weight), vdupq_n_u8(0x80)); }
MOESTRO_INLINE Table make_table(const uint8_t* entries) { return {from_code(vld1q_u8(entries))}; }
MOESTRO_INLINE Bytes64 load_bytes(const uint8_t* p) {
  return {{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
}
MOESTRO_INLINE void store_bytes(uint8_t* p, Bytes64 a) {
  vst1q_u8(p, a.v[0]);
  vst1q_u8(p + 16, a.v[1]);
  vst1q_u8(p + 32, a.v[2]);
  vst1q_u8(p + 48, a.v[3]);
}
template <int kShift, int kMask>
MOESTRO_INLINE uint8x16_t field_quarter(uint8x16_t a) {
  if constexpr (kShift != 0) a = vshrq_n_u8(a, kShift);
  return vandq_u8(a, vdupq_n_u8(kMask));
}
template <int kShift, int kMask>
MOESTRO_INLINE Bytes64 field(Bytes64 a) {
  constexpr auto op = field_quarter<kShift, kMask>;
  return MOESTRO_EACH_1(op, a);
}
// Byte p takes its one of the 8 bytes at `bits`, p / 8 = 2 kQuarter or 2 kQuarter + 1, and bit p % 8 of it decides.
template <int kValue, int kQuarter>
MOESTRO_INLINE uint8x16_t add_where_quarter(uint8x16_t a, uint8x16_t bits) {
  const uint8x16_t source = vcombine_u8(vdup_n_u8(2 * kQuarter), vdup_n_u8(2 * kQuarter + 1));
  const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  return vaddq_u8(a, vandq_u8(vtstq_u8(vqtbl1q_u8(bits, source), bit), vdupq_n_u8(kValue)));
}
template <int kValue>
MOESTRO_INLINE Bytes64 add_where(Bytes64 a, const uint8_t* bits) {
  const uint8x8_t word = vld1_u8(bits);
  const uint8x16_t twice = vcombine_u8(word, word);
  return {{add_where_quarter<kValue, 0>(a.v[0], twice), add_where_quarter<kValue, 1>(a.v[1], twice),
           add_where_quarter<kValue, 2>(a.v[2], twice), add_where_quarter<kValue, 3>(a.v[3], twice)}};
}
template <int kShift>
MOESTRO_INLINE uint8x16_t add_high_quarter(uint8x16_t low, uint8x16_t high) {
  if constexpr (kShift < 4) {
    high = vshlq_n_u8(high, 4 - kShift);
  } else if constexpr (kShift > 4) {
    high = vshrq_n_u8(high, kShift - 4);
  }
  return vorrq_u8(low, vandq_u8(high, vdupq_n_u8(0x30)));
}
template <int kShift>
MOESTRO_INLINE Bytes64 add_high_bits(Bytes64 low, Bytes64 high) {
  return {{add_high_quarter<kShift>(low.v[0], high.v[0]), add_high_quarter<kShift>(low.v[1], high.v[1]),
           add_high_quarter<kShift>(low.v[2], high.v[2]), add_high_quarter<kShift>(low.v[3], high.v[3])}};
}
template <int kValue>
MOESTRO_INLINE Bytes64 add_to_all(Bytes64 a) {
  const uint8x16_t value = vdupq_n_u8(kValue);
  return {{vaddq_u8(a.v[0], value), vaddq_u8(a.v[1], value), vaddq_u8(a.v[2], value), vaddq_u8(a.v[3], value)}};
}
MOESTRO_INLINE Weights lookup(Table table, Bytes64 index) {
  return {{vqtbl1q_s8(table.v, index.v[0]), vqtbl1q_s8(table.v, index.v[1]), vqtbl1q_s8(table.v, index.v[2]),
           vqtbl1q_s8(table.v, index.v[3])}};
}
MOESTRO_INLINE Weights load_weights(const uint8_t* codes) {
  const Bytes64 bytes = load_bytes(codes);
  return MOESTRO_EACH_1(from_code, bytes);
}
MOESTRO_INLINE void store_weights(uint8_t* codes, Weights w) { store_bytes(codes, MOESTRO_EACH_1(to_code, w)); }
MOESTRO_INLINE int8x16_t broadcast4(const int8_t* q) {
  int32_t four;
  std::memcpy(&four, q, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
MOESTRO_INLINE I32x16 dot4(I32x16 acc, Weights w, const int8_t* q) {
  const int8x16_t x = broadcast4(q);
  return {{vdotq_s32(acc.v[0], w.v[0], x), vdotq_s32(acc.v[1], w.v[1], x), vdotq_s32(acc.v[2], w.v[2], x),
           vdotq_s32(acc.v[3], w.v[3], x)}};
}
template <int kBias>
MOESTRO_INLINE I32x16 start_dot(const int32_t* q_sum) {
  return set1_i32(-kBias * *q_sum);
}
// Bytes of at most 127 are the same signed.
MOESTRO_INLINE I32x16 dot4_unsigned(I32x16 acc, Bytes64 w, const int8_t* q) {
  const Weights is_signed = MOESTRO_EACH_1(vreinterpretq_s8_u8, w);
  return dot4(acc, is_signed, q);
}
MOESTRO_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

#undef MOESTRO_EACH_1
#undef MOESTRO_EACH_2

}  // namespace
}  // namespace moestro
