// f16 for NEON: algorithm.h over the lanes of simd/neon.h.
#include "native/kernels/f16/f16.h"

#if defined(__aarch64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/neon.h"
#include "native/kernels/f16/algorithm.h"
// clang-format on

namespace moestro {

void f16_to_f32_neon(const uint16_t* x, int n, float* y) { widen_f16(x, n, y); }

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
