// Expert matrix on nested bit planes times int8 activations.
//
// y[i * y_stride + r] = sum_c w[r][c] x[token_rows[i]][c] for rows [row_begin, row_end), both multiples of 16, i <
// tokens.
//
// `level` is 2, 3, 4 or 8 and says which slots are read: 0-1, 0-2, 0-3, 0-7. Formats and order of accumulation:
// formats.h (PlaneMatrix, PlaneTables, Q8Activations); acc = fma(float(int), group_scale * activation_scale, acc), then
// y = acc * row_scale. At level 8 int = 2 sum(T4[c] q) + step * sum(r4 q) + offset * sum(q) and y = acc * (row_scale /
// 2). The same row gives the same bits whatever `tokens` and the row range are. row_begin == row_end or tokens == 0
// does nothing. Differs from the exact sum by at most (cols / 32 + 3) * eps * sum_c |w x|.
//
// Nested codes after Any-Precision LLM, arXiv:2402.10517; lookup by byte shuffle after T-MAC, arXiv:2407.00088.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/formats.h"
#include "native/kernels/variant.h"

namespace moestro {

using GemmQ8Planes = void(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Activations& x,
                          const int32_t* token_rows, int tokens, int row_begin, int row_end, float* y, size_t y_stride);
GemmQ8Planes gemm_q8_planes_scalar, gemm_q8_planes_neon, gemm_q8_planes_avx2, gemm_q8_planes_avx512,
    gemm_q8_planes_avx512vbmi;
Variants<GemmQ8Planes> gemm_q8_planes_variants();

// The same for many tokens, which come packed in blocks: output i is token i of `x`, which has w.cols columns. The same
// bits as gemm_q8_planes.
using GemmQ8PlanesPacked = void(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Block* x,
                                int tokens, int row_begin, int row_end, float* y, size_t y_stride);
GemmQ8PlanesPacked gemm_q8_planes_packed_scalar, gemm_q8_planes_packed_neon, gemm_q8_planes_packed_avx2,
    gemm_q8_planes_packed_avx512, gemm_q8_planes_packed_avx512vbmi, gemm_q8_planes_packed_amx;
Variants<GemmQ8PlanesPacked> gemm_q8_planes_packed_variants();

}  // namespace moestro
