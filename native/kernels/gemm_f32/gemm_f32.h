// Float32 matrix times float32 activations: routers and other small matrices.
//
// y[t * y_stride + r] = sum_c w[r * cols + c] x[t * cols + c], r < rows, t < tokens; cols % 16 == 0.
//
// Sums take 16 lanes, lane i elements i, i + 16, ..., by fma, then the tree of kernels.h: the same bits for any number
// of rows and tokens. Differs from the exact sum by at most (cols / 16 + 5) * eps * sum_c |w x|.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/variant.h"

namespace moestro {

using GemmF32 = void(const float* w, int rows, int cols, const float* x, int tokens, float* y, size_t y_stride);
GemmF32 gemm_f32_scalar, gemm_f32_neon, gemm_f32_avx2, gemm_f32_avx512;
Variants<GemmF32> gemm_f32_variants();

}  // namespace moestro
