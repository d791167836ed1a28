// The variants of quantize_q8, best first.
#include "native/kernels/quantize_q8/quantize_q8.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<QuantizeQ8> quantize_q8_variants() {
  static constexpr Variant<QuantizeQ8> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, quantize_q8_avx512},
    {Isa::avx2, quantize_q8_avx2},
#elif defined(__aarch64__)
    {Isa::neon, quantize_q8_neon},
#endif
    {Isa::scalar, quantize_q8_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
