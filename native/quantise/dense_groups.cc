#include "native/quantise/dense_groups.h"

#include <cmath>
#include <cstring>

#include "native/quantise/half.h"
#include "native/quantise/lanes.h"

#define MOESTRO_INLINE inline __attribute__((always_inline))

namespace moestro {
namespace {

// Groups side by side, as many as a register of the instruction set has lanes.
template <int kLanes>
struct Encoder : Lanes<kLanes> {
  using Base = Lanes<kLanes>;
  using Base::grid_value;
  using Base::load;
  using Base::smaller;
  using Base::splat;
  using typename Base::Floats;
  using typename Base::Ints;

  // Errors of both signs of `scale`, less what no choice changes.
  static MOESTRO_INLINE void costs(const float (*w)[kGroupsAtOnce], const Floats& scale, Floats* plus, Floats* minus) {
    const Floats inverse = 1.0f / scale;
    Floats sum_plus = {}, sum_minus = {};
    for (int column = 0; column < kGroup; ++column) {
      const Floats x = load(w[column]) * inverse;
      Floats best_plus = splat(3.4e38f), best_minus = splat(3.4e38f);
#pragma GCC unroll 16
      for (int c = 0; c < 16; ++c) {
        const float value = kDenseTable[c];
        const Floats line = x * (2.0f * value);
        best_plus = smaller(best_plus, value * value - line);
        best_minus = smaller(best_minus, value * value + line);
      }
      sum_plus += best_plus;
      sum_minus += best_minus;
    }
    *plus = sum_plus * scale * scale;
    *minus = sum_minus * scale * scale;
  }

  static MOESTRO_INLINE void encode_lanes(const float (*w)[kGroupsAtOnce], float row_scale, int lane0,
                                          DenseGroups* out) {
    Floats maximum = {};
    for (int column = 0; column < kGroup; ++column) {
      const Floats v = load(w[column]);
      const Floats size = v < -v ? -v : v;
      maximum = maximum < size ? size : maximum;
    }
    const Floats smallest = maximum / (row_scale * kPlaceHigh);
    Ints first = (reinterpret_cast<Ints>(smallest) >> 19) - kGridBias;
    first = first < 0 ? Ints{} : first;
    first = first > kGridSize - kCandidates ? Ints{} + (kGridSize - kCandidates) : first;
    Ints index = first, sign = {};
    Floats best = splat(3.4e38f);
    for (int step = 0; step < kCandidates; ++step) {
      const Ints tried = first + step;
      Floats plus, minus;
      costs(w, row_scale * grid_value(tried), &plus, &minus);
      const Ints negative = minus < plus;
      const Floats cost = smaller(minus, plus);
      const Ints wins = cost < best;
      best = wins ? cost : best;
      index = wins ? tried : index;
      sign = wins ? negative & 1 : sign;
    }
    const Floats magnitude = row_scale * grid_value(index);
    const Floats inverse = 1.0f / (sign != 0 ? -magnitude : magnitude);
    for (int lane = 0; lane < kLanes; ++lane)
      out->scale[lane0 + lane] = static_cast<uint8_t>(index[lane] | sign[lane] << 7);
    for (int column = 0; column < kGroup; ++column) {
      const Floats x = load(w[column]) * inverse;
      Floats nearest = splat(3.4e38f);
      Ints code = {};
      for (int c = 0; c < 16; ++c) {
        const Floats d = x - static_cast<float>(kDenseTable[c]);
        const Floats distance = d * d;
        const Ints wins = distance < nearest;
        nearest = wins ? distance : nearest;
        code = wins ? Ints{} + c : code;
      }
      for (int lane = 0; lane < kLanes; ++lane) out->code[column][lane0 + lane] = static_cast<uint8_t>(code[lane]);
    }
  }

  static MOESTRO_INLINE void encode(const float (*w)[kGroupsAtOnce], float row_scale, DenseGroups* out) {
    for (int lane0 = 0; lane0 < kGroupsAtOnce; lane0 += kLanes) {
      // Groups are adjacent floats, so the view that starts at lane0 keeps its stride.
      encode_lanes(reinterpret_cast<const float(*)[kGroupsAtOnce]>(&w[0][lane0]), row_scale, lane0, out);
    }
  }
};

using EncodeGroups = void (*)(const float (*)[kGroupsAtOnce], float, DenseGroups*);

void encode_baseline(const float (*w)[kGroupsAtOnce], float row_scale, DenseGroups* out) {
  Encoder<4>::encode(w, row_scale, out);
}

#ifdef MOESTRO_X86
MOESTRO_TARGET_AVX2 void encode_avx2(const float (*w)[kGroupsAtOnce], float row_scale, DenseGroups* out) {
  Encoder<8>::encode(w, row_scale, out);
}
MOESTRO_TARGET_AVX512 void encode_avx512(const float (*w)[kGroupsAtOnce], float row_scale, DenseGroups* out) {
  Encoder<16>::encode(w, row_scale, out);
}
#endif

EncodeGroups choose_encoder() {
#ifdef MOESTRO_X86
  return widest_of(encode_baseline, encode_avx2, encode_avx512);
#else
  return encode_baseline;
#endif
}

// Rounds half to even for |x| < 2^22, in a form that compilers vectorise.
inline float rounded(float x) { return (x + 12582912.0f) - 12582912.0f; }

// Codes of scale `bits` in `levels` steps to either side of `middle`; returns the squared error.
float encode_with(const float* w, uint16_t bits, float low, float high, uint8_t* codes) {
  const float scale = f16_value(bits);
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  float lanes[4] = {0, 0, 0, 0};
  for (int i = 0; i < kGroup; ++i) {
    const float x = w[i] * inverse;
    const float clipped = x < low ? low : x > high ? high : x;
    const float code = rounded(clipped);
    const float error = w[i] - code * scale;
    lanes[i % 4] += error * error;
    codes[i] = static_cast<uint8_t>(static_cast<int>(code - low));
  }
  return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

// The range is not even: -32 has no counterpart. So both signs of the scale are tried, each with the maximum at a few
// places around the range's end.
bool encode_six(const float* w, float maximum, uint16_t* scale, uint8_t* codes) {
  float best = 3.4e38f;
  uint8_t tried[kGroup];
  for (int quarter = -6; quarter <= 2; ++quarter) {
    const uint16_t bits = f16_of(maximum / (32.0f + 0.25f * static_cast<float>(quarter)));
    if (bits >= 0x7C00) return false;
    for (int sign = 0; sign < 2; ++sign) {
      const auto with_sign = static_cast<uint16_t>(bits | sign << 15);
      const float error = encode_with(w, with_sign, -32.0f, 31.0f, tried);
      if (error >= best) continue;
      best = error;
      *scale = with_sign;
      std::memcpy(codes, tried, kGroup);
    }
  }
  return true;
}

// The largest maps to 127 or just below: a scale that f16 rounded down so far that it would clip (possible among its
// subnormals) is taken one step up.
bool encode_eight(const float* w, float maximum, uint16_t* scale, uint8_t* codes) {
  uint16_t bits = f16_of(maximum / 127.0f);
  if (f16_value(bits) * 127.5f < maximum) ++bits;
  if (bits >= 0x7C00) return false;
  encode_with(w, bits, -127.0f, 127.0f, codes);
  for (int i = 0; i < kGroup; ++i) codes[i] = static_cast<uint8_t>(codes[i] + 1);
  *scale = bits;
  return true;
}

}  // namespace

bool encode_dense_group(const float* w, int bits, uint16_t* scale, uint8_t* codes) {
  float maximum = 0.0f;
  for (int i = 0; i < kGroup; ++i) maximum = std::fmax(maximum, std::fabs(w[i]));
  return bits == 6 ? encode_six(w, maximum, scale, codes) : encode_eight(w, maximum, scale, codes);
}

void encode_dense_groups(const float (*w)[kGroupsAtOnce], float row_scale, DenseGroups* out) {
  static const EncodeGroups encode = choose_encoder();
  encode(w, row_scale, out);
}

uint16_t dense_row_scale(float row_maximum) {
  const float scale = row_maximum / (kGridTop * kPlaceLow);
  return scale > 1e-34f ? bf16_of(scale) : 0;
}

float dense_group_scale(uint8_t scale) {
  const float magnitude = float_of_bits(static_cast<uint32_t>((scale & 127) + kGridBias) << 19);
  return scale & 128 ? -magnitude : magnitude;
}

}  // namespace moestro
