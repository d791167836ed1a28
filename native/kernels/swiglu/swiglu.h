// The gate activation, and two small relatives: sigmoid of one number, y += a x.
//
// swiglu: y[i] = gate[i] / (1 + exp(-gate[i])) * up[i]; f32 [n], n % 16 == 0; y may be gate or up. 8 eps; 0 where gate
// < -88.38. sigmoid: 1 / (1 + exp(-x)) with the same exp. 4 eps, and 0 where the exact value is below 5e-39. axpy: y[i]
// = fma(a, x[i], y[i]); f32 [n], n % 16 == 0.
//
// Source of SwiGLU: arXiv:2002.05202.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/variant.h"

namespace moestro {

using SwigluF32 = void(const float* gate, const float* up, int n, float* y);
SwigluF32 swiglu_f32_scalar, swiglu_f32_neon, swiglu_f32_avx2, swiglu_f32_avx512;
Variants<SwigluF32> swiglu_f32_variants();

using Sigmoid = float(float x);
Sigmoid sigmoid_scalar, sigmoid_neon, sigmoid_avx2, sigmoid_avx512;
Variants<Sigmoid> sigmoid_variants();

using AxpyF32 = void(float a, const float* x, int n, float* y);
AxpyF32 axpy_f32_scalar, axpy_f32_neon, axpy_f32_avx2, axpy_f32_avx512;
Variants<AxpyF32> axpy_f32_variants();

}  // namespace moestro
