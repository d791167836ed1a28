// The algorithm of topk_router, for any 16 lanes. Choosing is plain code: k passes over at most 1024 numbers.
#pragma once
#include "native/kernels/simd/math.h"

namespace moestro {
namespace {

inline void choose_experts(const float* logits, int n, int k, bool normalize, uint16_t* ids, float* weights) {
  constexpr int kMost = 1024;
  const float lowest = -__builtin_inff();
  float keys[kMost], exps[kMost];
  bool taken[kMost];
  const int padded = (n + 15) / 16 * 16;
  for (int i = 0; i < padded; ++i) {
    keys[i] = i < n && logits[i] == logits[i] ? logits[i] : lowest;
    taken[i] = false;
  }

  F32x16 largest = set1(lowest);
  for (int i = 0; i < padded; i += 16) largest = max(largest, load(keys + i));
  const F32x16 most = set1(reduce_max(largest));
  F32x16 total = set1(0.0f);
  for (int i = 0; i < padded; i += 16) {
    const F32x16 e = exp(sub(load(keys + i), most));
    store(exps + i, e);
    total = add(total, e);
  }
  const float sum = reduce_add(total);

  float chosen_sum = 0.0f;
  for (int rank = 0; rank < k; ++rank) {
    int best = -1;
    for (int i = 0; i < n; ++i) {
      if (!taken[i] && (best < 0 || keys[i] > keys[best])) best = i;
    }
    taken[best] = true;
    ids[rank] = static_cast<uint16_t>(best);
    weights[rank] = exps[best] / sum;
    chosen_sum += weights[rank];
  }
  if (!normalize) return;
  for (int rank = 0; rank < k; ++rank) weights[rank] /= chosen_sum;
}

}  // namespace
}  // namespace moestro
