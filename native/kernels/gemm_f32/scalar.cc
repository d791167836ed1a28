// gemm_f32 for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/gemm_f32/gemm_f32.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/gemm_f32/algorithm.h"
// clang-format on

namespace moestro {

void gemm_f32_scalar(const float* w, int rows, int cols, const float* x, int tokens, float* y, size_t y_stride) {
  gemm(w, rows, cols, x, tokens, y, y_stride);
}

}  // namespace moestro
