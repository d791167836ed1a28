// The variants of swiglu, best first.
#include "native/kernels/swiglu/swiglu.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<SwigluF32> swiglu_f32_variants() {
  static constexpr Variant<SwigluF32> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, swiglu_f32_avx512},
    {Isa::avx2, swiglu_f32_avx2},
#elif defined(__aarch64__)
    {Isa::neon, swiglu_f32_neon},
#endif
    {Isa::scalar, swiglu_f32_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

Variants<Sigmoid> sigmoid_variants() {
  static constexpr Variant<Sigmoid> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, sigmoid_avx512},
    {Isa::avx2, sigmoid_avx2},
#elif defined(__aarch64__)
    {Isa::neon, sigmoid_neon},
#endif
    {Isa::scalar, sigmoid_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

Variants<AxpyF32> axpy_f32_variants() {
  static constexpr Variant<AxpyF32> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, axpy_f32_avx512},
    {Isa::avx2, axpy_f32_avx2},
#elif defined(__aarch64__)
    {Isa::neon, axpy_f32_neon},
#endif
    {Isa::scalar, axpy_f32_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
