// rope for AVX2: algorithm.h over the lanes of simd/avx2.h.
#include "native/kernels/rope/rope.h"

#if defined(__x86_64__)
// clang-format off: the lanes first, then what is written in them
#include "native/kernels/rope/algorithm.h"
#include "native/kernels/simd/avx2.h"
// clang-format on

namespace moestro {

void rope_f32_avx2(float* x, int d, const float* cos, const float* sin) { rope(x, d, cos, sin); }

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
