// gemm_q8_dense for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/gemm_q8_dense/gemm_q8_dense.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/gemm_q8_dense/algorithm.h"
// clang-format on

namespace moestro {

void gemm_q8_dense_scalar(const DenseMatrix& w, const Q8Activations& x, int tokens, int row_begin, int row_end,
                          float* y, size_t y_stride) {
  gemm_dense(w, x, tokens, row_begin, row_end, y, y_stride);
}

}  // namespace moestro
