// swiglu for NEON: algorithm.h over the lanes of simd/neon.h.
#include "native/kernels/swiglu/swiglu.h"

#if defined(__aarch64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/neon.h"
#include "native/kernels/swiglu/algorithm.h"
// clang-format on

namespace moestro {

void swiglu_f32_neon(const float* gate, const float* up, int n, float* y) { swiglu(gate, up, n, y); }

float sigmoid_neon(float x) { return logistic(x); }

void axpy_f32_neon(float a, const float* x, int n, float* y) { axpy(a, x, n, y); }

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
