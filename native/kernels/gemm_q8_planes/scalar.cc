// gemm_q8_planes for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/gemm_q8_planes/gemm_q8_planes.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/gemm_q8_planes/algorithm.h"
#include "native/kernels/gemm_q8_planes/packed.h"
// clang-format on

namespace moestro {

void gemm_q8_planes_scalar(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Activations& x,
                           const int32_t* token_rows, int tokens, int row_begin, int row_end, float* y,
                           size_t y_stride) {
  gemm_planes(w, tables, level, x, token_rows, tokens, row_begin, row_end, y, y_stride);
}

void gemm_q8_planes_packed_scalar(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Block* x,
                                  int tokens, int row_begin, int row_end, float* y, size_t y_stride) {
  gemm_packed(w, tables, level, x, tokens, row_begin, row_end, y, y_stride);
}

}  // namespace moestro
