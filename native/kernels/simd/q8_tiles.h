// What the two int8 matrix kernels share: tokens by reference, and how a group is added. Included after one of
// simd/{scalar,avx2,avx512}.h.
#pragma once

namespace moestro {
namespace {

// One token's activations and where its outputs go.
struct Token {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  float* y;
};

// Output i of a call; token_rows null means row i.
MOESTRO_INLINE Token token_at(const Q8Activations& x, const int32_t* token_rows, int i, float* y, size_t y_stride) {
  const size_t row = token_rows != nullptr ? static_cast<size_t>(token_rows[i]) : static_cast<size_t>(i);
  const size_t groups = static_cast<size_t>(x.cols) / kGroup;
  return {x.q + row * x.cols, x.scale + row * groups, x.sum + row * groups, y + i * y_stride};
}

MOESTRO_INLINE F32x16 load_scales(const uint16_t* p) { return load_f16(p); }
MOESTRO_INLINE F32x16 load_scales(const float* p) { return load(p); }

// The same pointer, of which the compiler knows nothing: it then adds constants to this one, where it would otherwise
// carry a pointer for every token through the loop, or keep what it points to in registers.
template <typename T>
MOESTRO_INLINE const T* one_pointer(const T* p) {
  asm("" : "+r"(p));
  return p;
}

// acc = fma(float(dot), weight_scale * activation_scale, acc): the one way in which a group is added.
MOESTRO_INLINE F32x16 add_group(I32x16 dot, F32x16 weight_scales, float activation_scale, F32x16 acc) {
  return fma(to_float(dot), mul(weight_scales, set1(activation_scale)), acc);
}

}  // namespace
}  // namespace moestro
