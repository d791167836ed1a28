// kv_store for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/kv_store/kv_store.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/kv_store/algorithm.h"
// clang-format on

namespace moestro {

void kv_store_scalar(const KvLayer& kv, int block, int position_in_block, const float* k, const float* v) {
  store_position(kv, block, position_in_block, k, v);
}

}  // namespace moestro
