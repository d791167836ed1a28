// attention for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/attention/attention.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/attention/algorithm.h"
// clang-format on

namespace moestro {

void attention_scalar(const KvLayer& kv, const AttentionQueries& queries, int first, int last, float* scratch,
                      float* state) {
  attend(kv, queries, first, last, scratch, state);
}
void attention_merge_scalar(const float* later, int queries, int head_dim, float* state) {
  merge(later, queries, head_dim, state);
}
void attention_finish_scalar(const float* state, int queries, int head_dim, float* out) {
  finish(state, queries, head_dim, out);
}

}  // namespace moestro
