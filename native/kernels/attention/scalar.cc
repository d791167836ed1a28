// attention for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/attention/attention.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/attention/algorithm.h"
// clang-format on

namespace moestro {

void attention_scalar(const KvLayer& kv, const int32_t* block_table, int begin, int end, int kv_head, int group,
                      const float* q, float scale, float* scores, float* out) {
  attend(kv, block_table, begin, end, kv_head, group, q, scale, scores, out);
}

}  // namespace moestro
