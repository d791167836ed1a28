// rope for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/rope/rope.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/rope/algorithm.h"
// clang-format on

namespace moestro {

void rope_f32_scalar(float* x, int d, const float* cos, const float* sin) { rope(x, d, cos, sin); }

}  // namespace moestro
