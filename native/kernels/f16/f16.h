// Half precision rows to float32.
//
// x f16 bits [n] -> y f32 [n], exact; n % 16 == 0. Signalling NaNs become quiet.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/variant.h"

namespace moestro {

using F16ToF32 = void(const uint16_t* x, int n, float* y);
F16ToF32 f16_to_f32_scalar, f16_to_f32_neon, f16_to_f32_avx2, f16_to_f32_avx512;
Variants<F16ToF32> f16_to_f32_variants();

}  // namespace moestro
