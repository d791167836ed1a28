// The algorithm of rmsnorm, for any 16 lanes.
#pragma once

namespace moestro {
namespace {

inline void rmsnorm(const float* x, const float* weight, int n, float eps, float* y) {
  F32x16 squares = set1(0.0f);
  for (int i = 0; i < n; i += 16) squares = fma(load(x + i), load(x + i), squares);
  const F32x16 factor = set1(1.0f / sqrt1(reduce_add(squares) / static_cast<float>(n) + eps));
  for (int i = 0; i < n; i += 16) store(y + i, mul(mul(load(x + i), factor), load(weight + i)));
}

}  // namespace
}  // namespace moestro
