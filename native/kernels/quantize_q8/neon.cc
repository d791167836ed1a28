// quantize_q8 for NEON: algorithm.h over the lanes of simd/neon.h.
#include "native/kernels/quantize_q8/quantize_q8.h"

#if defined(__aarch64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/neon.h"
#include "native/kernels/quantize_q8/algorithm.h"
// clang-format on

namespace moestro {

void quantize_q8_neon(const float* x, int n, int8_t* q, float* scale, int32_t* sum) { quantize(x, n, q, scale, sum); }

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
