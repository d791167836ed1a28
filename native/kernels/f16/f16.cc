// The variants of f16, best first.
#include "native/kernels/f16/f16.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<F16ToF32> f16_to_f32_variants() {
  static constexpr Variant<F16ToF32> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, f16_to_f32_avx512},
    {Isa::avx2, f16_to_f32_avx2},
#elif defined(__aarch64__)
    {Isa::neon, f16_to_f32_neon},
#endif
    {Isa::scalar, f16_to_f32_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
