// gemm_f32 for NEON: algorithm.h over the lanes of simd/neon.h.
#include "native/kernels/gemm_f32/gemm_f32.h"

#if defined(__aarch64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/neon.h"
#include "native/kernels/gemm_f32/algorithm.h"
// clang-format on

namespace moestro {

void gemm_f32_neon(const float* w, int rows, int cols, const float* x, int tokens, float* y, size_t y_stride) {
  gemm(w, rows, cols, x, tokens, y, y_stride);
}

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
