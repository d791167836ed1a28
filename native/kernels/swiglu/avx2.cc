// swiglu for AVX2: algorithm.h over the lanes of simd/avx2.h.
#include "native/kernels/swiglu/swiglu.h"

#if defined(__x86_64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/avx2.h"
#include "native/kernels/swiglu/algorithm.h"
// clang-format on

namespace moestro {

void swiglu_f32_avx2(const float* gate, const float* up, int n, float* y) { swiglu(gate, up, n, y); }

float sigmoid_avx2(float x) { return logistic(x); }

void axpy_f32_avx2(float a, const float* x, int n, float* y) { axpy(a, x, n, y); }

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
