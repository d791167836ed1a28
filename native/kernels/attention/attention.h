// Attention of one token over a blocked KV cache, for the query heads that share a kv head.
//
// q f32 [group][head_dim], not yet scaled; positions [begin, end), end > begin; block_table maps position /
// block_tokens to a block; out f32 [group][head_dim]; scores is scratch f32 [group][round_up(end - begin, 16)], left
// holding the softmax weights. head_dim % 16 == 0. out must not overlap q or scores.
//
// score = dot(q, k) * (k scale) * scale; p = exp(score - max) / sum; out = sum of fma(p * (v scale), v) in ascending
// position. The dot product uses 16 lanes over head_dim; the sum of the softmax uses 16 lanes over position - begin. So
// a result depends on the stored positions alone: not on the chunk a token came in, nor on how blocks lie, nor on
// `group`. Source: PagedAttention, arXiv:2309.06180; grouped queries, arXiv:2305.13245.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/formats.h"
#include "native/kernels/variant.h"

namespace moestro {

using Attention = void(const KvLayer& kv, const int32_t* block_table, int begin, int end, int kv_head, int group,
                       const float* q, float scale, float* scores, float* out);
Attention attention_scalar, attention_neon, attention_avx2, attention_avx512;
Variants<Attention> attention_variants();

}  // namespace moestro
