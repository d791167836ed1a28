// topk_router for NEON: algorithm.h over the lanes of simd/neon.h.
#include "native/kernels/topk_router/topk_router.h"

#if defined(__aarch64__)
// The lanes first, then what is written in them:
// clang-format off
#include "native/kernels/simd/neon.h"
#include "native/kernels/topk_router/algorithm.h"
// clang-format on

namespace moestro {

void topk_router_neon(const float* logits, int n, int k, bool normalize, uint16_t* ids, float* weights) {
  choose_experts(logits, n, k, normalize, ids, weights);
}

}  // namespace moestro

#include "native/kernels/simd/end.h"
#endif
