// rope for AVX2: algorithm.h over the lanes of simd/avx2.h.
#include "native/kernels/rope/rope.h"

#if defined(__x86_64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/avx2.h"
#include "native/kernels/rope/algorithm.h"
// clang-format on

namespace moestro {

void rope_f32_avx2(float* x, int d, const float* cos, const float* sin) { rope(x, d, cos, sin); }

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
