// swiglu for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/swiglu/swiglu.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/swiglu/algorithm.h"
// clang-format on

namespace moestro {

void swiglu_f32_scalar(const float* gate, const float* up, int n, float* y) { swiglu(gate, up, n, y); }

float sigmoid_scalar(float x) { return logistic(x); }

void axpy_f32_scalar(float a, const float* x, int n, float* y) { axpy(a, x, n, y); }

}  // namespace moestro
