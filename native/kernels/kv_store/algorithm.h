// The algorithm of kv_store, for any 16 lanes.
#pragma once
#include "native/kernels/simd/math.h"

namespace moestro {
namespace {

constexpr int kHeadDimMax = 1024;

// `x` as the cache holds it; for int8 its scale goes to scales[row].
inline void convert(const float* x, int d, float*, size_t, uint16_t* to) {
  for (int i = 0; i < d; i += 16) store_f16(to + i, load(x + i));
}
inline void convert(const float* x, int d, float* scales, size_t row, int8_t* to) {
  I32x16 sum;
  scales[row] = quantize_i8(x, d, to, &sum);
}

template <typename Element>
inline void store_key(const float* x, size_t row, int d, float* scales, Element* keys) {
  alignas(64) Element key[kHeadDimMax];
  convert(x, d, scales, row, key);
  Element* lane = keys + row / kKvChunk * kKvChunk * d + row % kKvChunk;
  for (int i = 0; i < d; ++i) lane[i * kKvChunk] = key[i];
}

template <typename Element>
inline void store_head(const KvLayer& kv, size_t row, const float* k, const float* v) {
  const size_t d = kv.head_dim;
  store_key(k, row, kv.head_dim, kv.k_scale, reinterpret_cast<Element*>(kv.k));
  convert(v, kv.head_dim, kv.v_scale, row, reinterpret_cast<Element*>(kv.v) + row * d);
}

inline void store_position(const KvLayer& kv, int block, int position_in_block, const float* k, const float* v) {
  for (int head = 0; head < kv.kv_heads; ++head) {
    const size_t row = (static_cast<size_t>(block) * kv.kv_heads + head) * kv.block_tokens + position_in_block;
    const size_t from = static_cast<size_t>(head) * kv.head_dim;
    if (kv.type == KvType::f16) {
      store_head<uint16_t>(kv, row, k + from, v + from);
    } else {
      store_head<int8_t>(kv, row, k + from, v + from);
    }
  }
}

}  // namespace
}  // namespace moestro
