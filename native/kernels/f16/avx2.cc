// f16 for AVX2: algorithm.h over the lanes of simd/avx2.h.
#include "native/kernels/f16/f16.h"

#if defined(__x86_64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/avx2.h"
#include "native/kernels/f16/algorithm.h"
// clang-format on

namespace moestro {

void f16_to_f32_avx2(const uint16_t* x, int n, float* y) { widen_f16(x, n, y); }

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
