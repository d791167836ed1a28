// Dense matrix of 4, 6 or 8 bits times int8 activations.
//
// y[t * y_stride + r] = sum_c w[r][c] x[t][c] for rows [row_begin, row_end), both multiples of 16, t < tokens.
//
// Formats and order of accumulation: formats.h (DenseMatrix, Q8Activations). y f32; rows outside the range are not
// touched. The same row gives the same bits whatever `tokens` and the row range are. Any row_begin == row_end or
// tokens == 0 does nothing. Differs from the exact sum by at most (cols / 32 + 2) * eps * sum_c |w x|.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/formats.h"
#include "native/kernels/variant.h"

namespace moestro {

using GemmQ8Dense = void(const DenseMatrix& w, const Q8Activations& x, int tokens, int row_begin, int row_end, float* y,
                         size_t y_stride);
GemmQ8Dense gemm_q8_dense_scalar, gemm_q8_dense_neon, gemm_q8_dense_avx2, gemm_q8_dense_avx512;
Variants<GemmQ8Dense> gemm_q8_dense_variants();

}  // namespace moestro
