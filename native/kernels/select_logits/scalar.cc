// select_logits for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/select_logits/select_logits.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/select_logits/algorithm.h"
// clang-format on

namespace moestro {

int find_largest_scalar(const float* x, int n) { return largest_index(x, n); }

int find_from_scalar(const float* x, int begin, int end, float bound, int32_t* ids) {
  return indices_from(x, begin, end, bound, ids);
}

}  // namespace moestro
