// attention for AVX-512: algorithm.h over the lanes of simd/avx512.h.
#include "native/kernels/attention/attention.h"

#if defined(__x86_64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/avx512.h"
#include "native/kernels/attention/algorithm.h"
// clang-format on

namespace moestro {

void attention_avx512(const KvLayer& kv, const AttentionQueries& queries, int first, int last, float* scratch,
                      float* state) {
  attend(kv, queries, first, last, scratch, state);
}
void attention_merge_avx512(const float* later, int queries, int head_dim, float* state) {
  merge(later, queries, head_dim, state);
}
void attention_finish_avx512(const float* state, int queries, int head_dim, float* out) {
  finish(state, queries, head_dim, out);
}

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
