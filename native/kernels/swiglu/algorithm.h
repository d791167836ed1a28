// The algorithms of swiglu, sigmoid and axpy, for any 16 lanes.
#pragma once
#include "native/kernels/simd/math.h"

namespace moestro {
namespace {

inline void swiglu(const float* gate, const float* up, int n, float* y) {
  for (int i = 0; i < n; i += 16) {
    const F32x16 g = load(gate + i);
    const F32x16 silu = div(g, add(set1(1.0f), exp(negate(g))));
    store(y + i, mul(silu, load(up + i)));
  }
}

inline float logistic(float x) {
  float lanes[16];
  store(lanes, div(set1(1.0f), add(set1(1.0f), exp(set1(-x)))));
  return lanes[0];
}

inline void axpy(float a, const float* x, int n, float* y) {
  const F32x16 factor = set1(a);
  for (int i = 0; i < n; i += 16) store(y + i, fma(factor, load(x + i), load(y + i)));
}

}  // namespace
}  // namespace moestro
