// topk_router for plain C++, the reference: algorithm.h over the lanes of simd/scalar.h.
#include "native/kernels/topk_router/topk_router.h"

// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/scalar.h"
#include "native/kernels/topk_router/algorithm.h"
// clang-format on

namespace moestro {

void topk_router_scalar(const float* logits, int n, int k, bool normalize, uint16_t* ids, float* weights) {
  choose_experts(logits, n, k, normalize, ids, weights);
}

}  // namespace moestro
