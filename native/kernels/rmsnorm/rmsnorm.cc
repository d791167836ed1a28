// The variants of rmsnorm, best first.
#include "native/kernels/rmsnorm/rmsnorm.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<RmsnormF32> rmsnorm_f32_variants() {
  static constexpr Variant<RmsnormF32> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, rmsnorm_f32_avx512},
    {Isa::avx2, rmsnorm_f32_avx2},
#elif defined(__aarch64__)
    {Isa::neon, rmsnorm_f32_neon},
#endif
    {Isa::scalar, rmsnorm_f32_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
