// Writes one position's keys and values into the KV cache.
//
// k, v f32 [kv_heads][head_dim] go to position `position_in_block` of `block` in every kv head; head_dim % 16 == 0, at
// most 1024.
//
// f16 rounds half to even; int8 stores q = round(x / scale) and scale = max|x| / 127 per head, both as quantize_q8.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/formats.h"
#include "native/kernels/variant.h"

namespace moestro {

using KvStore = void(const KvLayer& kv, int block, int position_in_block, const float* k, const float* v);
KvStore kv_store_scalar, kv_store_neon, kv_store_avx2, kv_store_avx512;
Variants<KvStore> kv_store_variants();

}  // namespace moestro
