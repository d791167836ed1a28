// The algorithm of quantize_q8, for any 16 lanes.
#pragma once
#include "native/kernels/simd/math.h"

namespace moestro {
namespace {

inline void quantize(const float* x, int n, int8_t* q, float* scale, int32_t* sum) {
  for (int begin = 0, group = 0; begin < n; begin += 32, ++group) {
    I32x16 total;
    scale[group] = quantize_i8(x + begin, 32, q + begin, &total);
    sum[group] = reduce_add_i32(total);
  }
}

}  // namespace
}  // namespace moestro
