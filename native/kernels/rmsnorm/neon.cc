// rmsnorm for NEON: algorithm.h over the lanes of simd/neon.h.
#include "native/kernels/rmsnorm/rmsnorm.h"

#if defined(__aarch64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/neon.h"
#include "native/kernels/rmsnorm/algorithm.h"
// clang-format on

namespace moestro {

void rmsnorm_f32_neon(const float* x, const float* weight, int n, float eps, float* y) {
  rmsnorm(x, weight, n, eps, y);
}

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
