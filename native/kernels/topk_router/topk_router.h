// Softmax over a router's scores and the k best experts.
//
// logits f32 [n], 1 <= k <= n <= 1024, k <= 64 -> ids u16 [k], highest logit first, ties to the lower index; weights
// f32 [k] = softmax over all n at those ids, divided by their sum (highest first) where `normalize`.
//
// A NaN ranks lowest, so ids are always k different experts. Weights are within 16 eps of the exact ones.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/variant.h"

namespace moestro {

using TopkRouter = void(const float* logits, int n, int k, bool normalize, uint16_t* ids, float* weights);
TopkRouter topk_router_scalar, topk_router_neon, topk_router_avx2, topk_router_avx512;
Variants<TopkRouter> topk_router_variants();

}  // namespace moestro
