// rope for NEON: algorithm.h over the lanes of simd/neon.h.
#include "native/kernels/rope/rope.h"

#if defined(__aarch64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/neon.h"
#include "native/kernels/rope/algorithm.h"
// clang-format on

namespace moestro {

void rope_f32_neon(float* x, int d, const float* cos, const float* sin) { rope(x, d, cos, sin); }

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
