// The variants of topk_router, best first.
#include "native/kernels/topk_router/topk_router.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<TopkRouter> topk_router_variants() {
  static constexpr Variant<TopkRouter> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, topk_router_avx512},
    {Isa::avx2, topk_router_avx2},
#elif defined(__aarch64__)
    {Isa::neon, topk_router_neon},
#endif
    {Isa::scalar, topk_router_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
