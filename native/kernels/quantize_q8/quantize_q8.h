// Float32 activations to int8 in groups of 32.
//
// x f32 [n], n % 32 == 0 -> q int8 [n], scale f32 [n / 32], sum int32 [n / 32] (the sum of q in the group).
//
// scale = max|x| / 127, q = round-half-even(x * (1 / scale)), |q| <= 127. A group whose max|x| is below 1e-35 is all
// zero, with scale 0. Outputs must not overlap x. Differs from exact rounding by one step of q at most, at ties.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/variant.h"

namespace moestro {

using QuantizeQ8 = void(const float* x, int n, int8_t* q, float* scale, int32_t* sum);
QuantizeQ8 quantize_q8_scalar, quantize_q8_neon, quantize_q8_avx2, quantize_q8_avx512;
Variants<QuantizeQ8> quantize_q8_variants();

}  // namespace moestro
