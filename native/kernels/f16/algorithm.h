// The algorithm of f16_to_f32, for any 16 lanes.
#pragma once

namespace moestro {
namespace {

inline void widen_f16(const uint16_t* x, int n, float* y) {
  for (int i = 0; i < n; i += 16) store(y + i, load_f16(x + i));
}

}  // namespace
}  // namespace moestro
