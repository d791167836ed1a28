// The variants of kv_store, best first.
#include "native/kernels/kv_store/kv_store.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<KvStore> kv_store_variants() {
  static constexpr Variant<KvStore> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, kv_store_avx512},
    {Isa::avx2, kv_store_avx2},
#elif defined(__aarch64__)
    {Isa::neon, kv_store_neon},
#endif
    {Isa::scalar, kv_store_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
