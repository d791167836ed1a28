// The variants of gemm_f32, best first.
#include "native/kernels/gemm_f32/gemm_f32.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<GemmF32> gemm_f32_variants() {
  static constexpr Variant<GemmF32> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, gemm_f32_avx512},
    {Isa::avx2, gemm_f32_avx2},
#elif defined(__aarch64__)
    {Isa::neon, gemm_f32_neon},
#endif
    {Isa::scalar, gemm_f32_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
