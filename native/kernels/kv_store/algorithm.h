// The algorithm of kv_store, for any 16 lanes.
#pragma once
#include "native/kernels/simd/math.h"

namespace moestro {
namespace {

inline void store_head(const KvLayer& kv, size_t row, const float* x, uint8_t* bytes, float* scales) {
  if (kv.type == KvType::f16) {
    uint16_t* to = reinterpret_cast<uint16_t*>(bytes) + row * kv.head_dim;
    for (int i = 0; i < kv.head_dim; i += 16) store_f16(to + i, load(x + i));
  } else {
    I32x16 sum;
    scales[row] = quantize_i8(x, kv.head_dim, reinterpret_cast<int8_t*>(bytes) + row * kv.head_dim, &sum);
  }
}

inline void store_position(const KvLayer& kv, int block, int position_in_block, const float* k, const float* v) {
  for (int head = 0; head < kv.kv_heads; ++head) {
    const size_t row = (static_cast<size_t>(block) * kv.kv_heads + head) * kv.block_tokens + position_in_block;
    const size_t from = static_cast<size_t>(head) * kv.head_dim;
    store_head(kv, row, k + from, kv.k, kv.k_scale);
    store_head(kv, row, v + from, kv.v, kv.v_scale);
  }
}

}  // namespace
}  // namespace moestro
