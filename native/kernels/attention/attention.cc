// The variants of attention, best first.
#include "native/kernels/attention/attention.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<Attention> attention_variants() {
  static constexpr Variant<Attention> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, attention_avx512},
    {Isa::avx2, attention_avx2},
#elif defined(__aarch64__)
    {Isa::neon, attention_neon},
#endif
    {Isa::scalar, attention_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

Variants<AttentionMerge> attention_merge_variants() {
  static constexpr Variant<AttentionMerge> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, attention_merge_avx512},
    {Isa::avx2, attention_merge_avx2},
#elif defined(__aarch64__)
    {Isa::neon, attention_merge_neon},
#endif
    {Isa::scalar, attention_merge_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

Variants<AttentionFinish> attention_finish_variants() {
  static constexpr Variant<AttentionFinish> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, attention_finish_avx512},
    {Isa::avx2, attention_finish_avx2},
#elif defined(__aarch64__)
    {Isa::neon, attention_finish_neon},
#endif
    {Isa::scalar, attention_finish_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
