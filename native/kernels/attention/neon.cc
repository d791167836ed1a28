// attention for NEON: algorithm.h over the lanes of simd/neon.h.
#include "native/kernels/attention/attention.h"

#if defined(__aarch64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/neon.h"
#include "native/kernels/attention/algorithm.h"
// clang-format on

namespace moestro {

void attention_neon(const KvLayer& kv, const int32_t* block_table, int begin, int end, int kv_head, int group,
                    const float* q, float scale, float* scores, float* out) {
  attend(kv, block_table, begin, end, kv_head, group, q, scale, scores, out);
}

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
