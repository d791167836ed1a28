// gemm_q8_planes for AVX-512 with VBMI and GFNI: algorithm.h over the lanes of simd/avx512vbmi.h.
#include "native/kernels/gemm_q8_planes/gemm_q8_planes.h"

#if defined(__x86_64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/avx512vbmi.h"
#include "native/kernels/gemm_q8_planes/algorithm.h"
#include "native/kernels/gemm_q8_planes/packed.h"
// clang-format on

namespace moestro {

void gemm_q8_planes_avx512vbmi(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Activations& x,
                               const int32_t* token_rows, int tokens, int row_begin, int row_end, float* y,
                               size_t y_stride) {
  gemm_planes(w, tables, level, x, token_rows, tokens, row_begin, row_end, y, y_stride);
}

void gemm_q8_planes_packed_avx512vbmi(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Block* x,
                                      int tokens, int row_begin, int row_end, float* y, size_t y_stride) {
  gemm_packed(w, tables, level, x, tokens, row_begin, row_end, y, y_stride);
}

}  // namespace moestro

#if defined(__clang__)
#pragma clang attribute pop
#endif
#include "native/kernels/simd/end.h"
#endif
