// kv_store for AVX-512: algorithm.h over the lanes of simd/avx512.h.
#include "native/kernels/kv_store/kv_store.h"

#if defined(__x86_64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/avx512.h"
#include "native/kernels/kv_store/algorithm.h"
// clang-format on

namespace moestro {

void kv_store_avx512(const KvLayer& kv, int block, int position_in_block, const float* k, const float* v) {
  store_position(kv, block, position_in_block, k, v);
}

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
