// The algorithm of gemm_f32, for any 16 lanes: four rows at a time against one token, so that each load of x serves
// four.
#pragma once

namespace moestro {
namespace {

template <int kRows>
MOESTRO_INLINE void dot_rows(const float* w, int cols, const float* x, float* y) {
  F32x16 acc[kRows];
  for (int r = 0; r < kRows; ++r) acc[r] = set1(0.0f);
  for (int c = 0; c < cols; c += 16) {
    const F32x16 values = load(x + c);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) acc[r] = fma(load(w + static_cast<size_t>(r) * cols + c), values, acc[r]);
  }
  for (int r = 0; r < kRows; ++r) y[r] = reduce_add(acc[r]);
}

inline void gemm(const float* w, int rows, int cols, const float* x, int tokens, float* y, size_t y_stride) {
  int row = 0;
  for (; row + 4 <= rows; row += 4) {
    const float* block = w + static_cast<size_t>(row) * cols;
    for (int t = 0; t < tokens; ++t)
      dot_rows<4>(block, cols, x + static_cast<size_t>(t) * cols, y + t * y_stride + row);
  }
  for (; row < rows; ++row) {
    const float* block = w + static_cast<size_t>(row) * cols;
    for (int t = 0; t < tokens; ++t)
      dot_rows<1>(block, cols, x + static_cast<size_t>(t) * cols, y + t * y_stride + row);
  }
}

}  // namespace
}  // namespace moestro
