// f16 for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/f16/f16.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/f16/algorithm.h"
// clang-format on

namespace moestro {

void f16_to_f32_scalar(const uint16_t* x, int n, float* y) { widen_f16(x, n, y); }

}  // namespace moestro
