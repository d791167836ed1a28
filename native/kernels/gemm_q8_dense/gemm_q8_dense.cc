// The variants of gemm_q8_dense, best first.
#include "native/kernels/gemm_q8_dense/gemm_q8_dense.h"

#include "native/base/cpu.h"

namespace moestro {

Variants<GemmQ8Dense> gemm_q8_dense_variants() {
  static constexpr Variant<GemmQ8Dense> kTable[] = {
#if defined(__x86_64__)
    {Isa::avx512, gemm_q8_dense_avx512},
    {Isa::avx2, gemm_q8_dense_avx2},
#elif defined(__aarch64__)
    {Isa::neon, gemm_q8_dense_neon},
#endif
    {Isa::scalar, gemm_q8_dense_scalar},
  };
  return {kTable, sizeof kTable / sizeof kTable[0]};
}

}  // namespace moestro
