// gemm_q8_dense for NEON: algorithm.h over the lanes of simd/neon.h.
#include "native/kernels/gemm_q8_dense/gemm_q8_dense.h"

#if defined(__aarch64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/neon.h"
#include "native/kernels/gemm_q8_dense/algorithm.h"
// clang-format on

namespace moestro {

void gemm_q8_dense_neon(const DenseMatrix& w, const Q8Activations& x, int tokens, int row_begin, int row_end, float* y,
                        size_t y_stride) {
  gemm_dense(w, x, tokens, row_begin, row_end, y, y_stride);
}

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
