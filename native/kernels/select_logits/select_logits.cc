// The variants of select_logits, best first.
#include "native/kernels/select_logits/select_logits.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<FindLargest> find_largest_variants() {
  static constexpr Variant<FindLargest> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, find_largest_avx512},
    {Isa::avx2, find_largest_avx2},
#elif defined(__aarch64__)
    {Isa::neon, find_largest_neon},
#endif
    {Isa::scalar, find_largest_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

Variants<FindFrom> find_from_variants() {
  static constexpr Variant<FindFrom> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, find_from_avx512},
    {Isa::avx2, find_from_avx2},
#elif defined(__aarch64__)
    {Isa::neon, find_from_neon},
#endif
    {Isa::scalar, find_from_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
