// quantize_q8 for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/quantize_q8/quantize_q8.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/quantize_q8/algorithm.h"
// clang-format on

namespace moestro {

void quantize_q8_scalar(const float* x, int n, int8_t* q, float* scale, int32_t* sum) { quantize(x, n, q, scale, sum); }

}  // namespace moestro
