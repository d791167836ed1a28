// Root mean square norm.
//
// y[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]; x, weight, y f32 [n], n % 16 == 0. y may be x.
//
// Within (n / 32 + 8) eps of the exact value. Source: arXiv:1910.07467.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/variant.h"

namespace moestro {

using RmsnormF32 = void(const float* x, const float* weight, int n, float eps, float* y);
RmsnormF32 rmsnorm_f32_scalar, rmsnorm_f32_neon, rmsnorm_f32_avx2, rmsnorm_f32_avx512;
Variants<RmsnormF32> rmsnorm_f32_variants();

}  // namespace moestro
