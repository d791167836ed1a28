// select_logits for AVX2: algorithm.h over the lanes of simd/avx2.h.
#include "native/kernels/select_logits/select_logits.h"

#if defined(__x86_64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/avx2.h"
#include "native/kernels/select_logits/algorithm.h"
// clang-format on

namespace moestro {

int find_largest_avx2(const float* x, int n) { return largest_index(x, n); }

int find_from_avx2(const float* x, int begin, int end, float bound, int32_t* ids) {
  return indices_from(x, begin, end, bound, ids);
}

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
