// Rotary position embedding of one head, NeoX pairing.
//
// Rotates in place: (x[i], x[i + d/2]) -> (x[i] cos[i] - x[i + d/2] sin[i], x[i + d/2] cos[i] + x[i] sin[i]).
//
// x f32 [d], d % 32 == 0; cos and sin f32 [d / 2]. One product is rounded, the other is fused. Source:
// arXiv:2104.09864.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/variant.h"

namespace moestro {

using RopeF32 = void(float* x, int d, const float* cos, const float* sin);
RopeF32 rope_f32_scalar, rope_f32_neon, rope_f32_avx2, rope_f32_avx512;
Variants<RopeF32> rope_f32_variants();

}  // namespace moestro
