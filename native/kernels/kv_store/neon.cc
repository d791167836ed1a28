// kv_store for NEON: algorithm.h over the lanes of simd/neon.h.
#include "native/kernels/kv_store/kv_store.h"

#if defined(__aarch64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/neon.h"
#include "native/kernels/kv_store/algorithm.h"
// clang-format on

namespace moestro {

void kv_store_neon(const KvLayer& kv, int block, int position_in_block, const float* k, const float* v) {
  store_position(kv, block, position_in_block, k, v);
}

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
