// rmsnorm for AVX-512: algorithm.h over the lanes of simd/avx512.h.
#include "native/kernels/rmsnorm/rmsnorm.h"

#if defined(__x86_64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/avx512.h"
#include "native/kernels/rmsnorm/algorithm.h"
// clang-format on

namespace moestro {

void rmsnorm_f32_avx512(const float* x, const float* weight, int n, float eps, float* y) {
  rmsnorm(x, weight, n, eps, y);
}

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
