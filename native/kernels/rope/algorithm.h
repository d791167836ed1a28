// The algorithm of rope, for any 16 lanes.
#pragma once

namespace moestro {
namespace {

inline void rope(float* x, int d, const float* cos, const float* sin) {
  float* first = x;
  float* second = x + d / 2;
  for (int i = 0; i < d / 2; i += 16) {
    const F32x16 a = load(first + i), b = load(second + i), c = load(cos + i), s = load(sin + i);
    store(first + i, fma(a, c, negate(mul(b, s))));
    store(second + i, fma(b, c, mul(a, s)));
  }
}

}  // namespace
}  // namespace moestro
