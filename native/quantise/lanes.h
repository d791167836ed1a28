// Generic vectors for the searches of the quantiser, of the width that the instruction set has: the compiler lowers a
// wider one badly. A tile is walked in 16 / kLanes passes, each over `kLanes` of its rows. Only adds, multiplies,
// divisions and comparisons are used and none is fused, so all widths give the same bytes.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define MOESTRO_X86 1
#define MOESTRO_TARGET_AVX2 __attribute__((target("avx2")))
#define MOESTRO_TARGET_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512")))
#endif
// Vectors are passed between functions of one file only, all of them inlined: no ABI is at stake.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace moestro {

// The grid of scale magnitudes: index = exponent * 16 + mantissa, value's float32 bits = (index + 1920) << 19.
constexpr int kGridSize = 128;
constexpr int kGridBias = 120 << 4;
constexpr float kGridTop = 1.9375f;
// A group's maximum is put between these table values: one octave below kPlaceHigh, 16 steps of the grid. Beyond 127
// it is clipped, which pays when the rest of the group gains; below, the table's ends would go unused.
constexpr float kPlaceHigh = 152.0f;
constexpr float kPlaceLow = 72.0f;
constexpr int kCandidates = 18;

#ifdef MOESTRO_X86
// Of one function compiled for three sets, the one for the widest vectors that this machine has.
template <typename Function>
Function* widest_of(Function* baseline, Function* avx2, Function* avx512) {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return avx512;
  return __builtin_cpu_supports("avx2") ? avx2 : baseline;
}
#endif

template <int kLanes>
struct Lanes {
  typedef float Floats __attribute__((vector_size(4 * kLanes)));
  typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));

  static inline __attribute__((always_inline)) Floats splat(float value) { return value - Floats{}; }
  static inline __attribute__((always_inline)) Floats load(const float* p) {
    Floats v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static inline __attribute__((always_inline)) void store(float* p, const Floats& v) { std::memcpy(p, &v, sizeof v); }
  static inline __attribute__((always_inline)) Floats larger(const Floats& a, const Floats& b) { return a > b ? a : b; }
  static inline __attribute__((always_inline)) Floats smaller(const Floats& a, const Floats& b) {
    return a < b ? a : b;
  }
  static inline __attribute__((always_inline)) Floats grid_value(const Ints& index) {
    const Ints bits = (index + kGridBias) << 19;
    return reinterpret_cast<Floats>(bits);
  }
  // The first of the kCandidates grid indices to try for groups of this maximum.
  static inline __attribute__((always_inline)) Ints first_candidate(const Floats& maximum, const Floats& row_scale) {
    const Floats smallest = maximum / (row_scale * kPlaceHigh);
    Ints first = (reinterpret_cast<Ints>(smallest) >> 19) - kGridBias;
    first = first < 0 ? Ints{} : first;
    return first > kGridSize - kCandidates ? Ints{} + (kGridSize - kCandidates) : first;
  }
};

}  // namespace moestro
