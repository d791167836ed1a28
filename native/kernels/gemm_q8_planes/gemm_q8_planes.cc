// The variants of gemm_q8_planes and of its packed form, best first.
#include "native/kernels/gemm_q8_planes/gemm_q8_planes.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<GemmQ8Planes> gemm_q8_planes_variants() {
  static constexpr Variant<GemmQ8Planes> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512vbmi, gemm_q8_planes_avx512vbmi},
    {Isa::avx512, gemm_q8_planes_avx512},
    {Isa::avx2, gemm_q8_planes_avx2},
#elif defined(__aarch64__)
    {Isa::neon, gemm_q8_planes_neon},
#endif
    {Isa::scalar, gemm_q8_planes_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

Variants<GemmQ8PlanesPacked> gemm_q8_planes_packed_variants() {
  static constexpr Variant<GemmQ8PlanesPacked> kTable[] = {
#if defined(__x86_64__)
    {Isa::amx, gemm_q8_planes_packed_amx},
    {Isa::avx512vbmi, gemm_q8_planes_packed_avx512vbmi},
    {Isa::avx512, gemm_q8_planes_packed_avx512},
    {Isa::avx2, gemm_q8_planes_packed_avx2},
#elif defined(__aarch64__)
    {Isa::neon, gemm_q8_planes_packed_neon},
#endif
    {Isa::scalar, gemm_q8_planes_packed_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
