// The variants of rope, best first.
#include "native/kernels/rope/rope.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<RopeF32> rope_f32_variants() {
  static constexpr Variant<RopeF32> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, rope_f32_avx512},
    {Isa::avx2, rope_f32_avx2},
#elif defined(__aarch64__)
    {Isa::neon, rope_f32_neon},
#endif
    {Isa::scalar, rope_f32_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
