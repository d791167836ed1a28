// rmsnorm for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/rmsnorm/rmsnorm.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/rmsnorm/algorithm.h"
// clang-format on

namespace moestro {

void rmsnorm_f32_scalar(const float* x, const float* weight, int n, float eps, float* y) {
  rmsnorm(x, weight, n, eps, y);
}

}  // namespace moestro
