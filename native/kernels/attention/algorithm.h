// The algorithm of attention, for any 16 lanes: scores 16 positions at a time, softmax, then the weighted sum of
// values.
//
// Query heads go through in fours, so that a key or value is widened to float once for four heads.
#pragma once
#include "native/kernels/simd/math.h"

namespace moestro {
namespace {

constexpr int kHeadsAtOnce = 4;

MOESTRO_INLINE F32x16 load_element(const uint16_t* p) { return load_f16(p); }
MOESTRO_INLINE F32x16 load_element(const int8_t* p) { return load_i8(p); }

// Where one kv head's rows lie: row of a position = index into [.., head_dim] elements and into the scales.
struct HeadRows {
  const int32_t* block_table;
  int block_tokens, kv_heads, kv_head;
};
MOESTRO_INLINE size_t row_of(const HeadRows& rows, int position) {
  const size_t block = static_cast<size_t>(rows.block_table[position / rows.block_tokens]);
  return (block * rows.kv_heads + rows.kv_head) * rows.block_tokens + position % rows.block_tokens;
}

// scores[h * stride + i] of heads [0, kHeads) for the positions begin + 16 chunk .. + 15, those at or past `end` -inf.
template <int kHeads, typename Element>
inline void score_chunk(const HeadRows& rows, const Element* keys, const float* key_scales, int d, int first, int end,
                        const float* q, float scale, float* scores, size_t stride) {
  F32x16 sums[kHeads][16];
  float row_scales[16];
  const int count = end - first < 16 ? end - first : 16;
  for (int i = 0; i < 16; ++i) {
    F32x16 acc[kHeads];
    for (int h = 0; h < kHeads; ++h) acc[h] = set1(0.0f);
    row_scales[i] = 1.0f;
    if (i < count) {
      const size_t row = row_of(rows, first + i);
      const Element* key = keys + row * d;
      if (key_scales != nullptr) row_scales[i] = key_scales[row];
      for (int c = 0; c < d; c += 16) {
        const F32x16 values = load_element(key + c);
#pragma GCC unroll 4
        for (int h = 0; h < kHeads; ++h) acc[h] = fma(load(q + h * d + c), values, acc[h]);
      }
    }
    for (int h = 0; h < kHeads; ++h) sums[h][i] = acc[h];
  }
  for (int h = 0; h < kHeads; ++h) {
    float* out = scores + h * stride;
    store(out, mul(mul(reduce_add_rows(sums[h]), load(row_scales)), set1(scale)));
    for (int i = count; i < 16; ++i) out[i] = -__builtin_inff();
  }
}

inline void softmax(float* scores, int padded) {
  F32x16 largest = set1(-__builtin_inff());
  for (int i = 0; i < padded; i += 16) largest = max(largest, load(scores + i));
  const F32x16 most = set1(reduce_max(largest));
  F32x16 total = set1(0.0f);
  for (int i = 0; i < padded; i += 16) {
    const F32x16 e = exp(sub(load(scores + i), most));
    store(scores + i, e);
    total = add(total, e);
  }
  const F32x16 factor = set1(1.0f / reduce_add(total));
  for (int i = 0; i < padded; i += 16) store(scores + i, mul(load(scores + i), factor));
}

// out[h][c .. c + 16 kParts) for heads [0, kHeads).
template <int kHeads, int kParts, typename Element>
inline void weigh_values(const HeadRows& rows, const Element* values, const float* value_scales, int d, int begin,
                         int end, const float* weights, size_t stride, float* out) {
  F32x16 acc[kHeads][kParts];
#pragma GCC unroll 4
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) acc[h][part] = set1(0.0f);
  }
  for (int position = begin; position < end;) {
    const int left_in_block = rows.block_tokens - position % rows.block_tokens;
    const int stop = end - position < left_in_block ? end : position + left_in_block;
    size_t row = row_of(rows, position);
    for (; position < stop; ++position, ++row) {
      const Element* value = values + row * d;
      const float row_scale = value_scales != nullptr ? value_scales[row] : 1.0f;
      F32x16 parts[kParts];
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) parts[part] = load_element(value + 16 * part);
#pragma GCC unroll 4
      for (int h = 0; h < kHeads; ++h) {
        const F32x16 weight = set1(weights[h * stride + (position - begin)] * row_scale);
#pragma GCC unroll 4
        for (int part = 0; part < kParts; ++part) acc[h][part] = fma(weight, parts[part], acc[h][part]);
      }
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) store(out + h * d + 16 * part, acc[h][part]);
  }
}

template <int kHeads, typename Element>
inline void attend_heads(const KvLayer& kv, const HeadRows& rows, int begin, int end, const float* q, float scale,
                         float* scores, float* out) {
  const int d = kv.head_dim;
  const int padded = (end - begin + 15) / 16 * 16;
  const Element* keys = reinterpret_cast<const Element*>(kv.k);
  const Element* values = reinterpret_cast<const Element*>(kv.v);
  const float* key_scales = kv.type == KvType::int8 ? kv.k_scale : nullptr;
  const float* value_scales = kv.type == KvType::int8 ? kv.v_scale : nullptr;
  for (int i = 0; i < padded; i += 16) {
    score_chunk<kHeads>(rows, keys, key_scales, d, begin + i, end, q, scale, scores + i, padded);
  }
  for (int h = 0; h < kHeads; ++h) softmax(scores + static_cast<size_t>(h) * padded, padded);
  int c = 0;
  for (; c + 64 <= d; c += 64) {
    weigh_values<kHeads, 4>(rows, values + c, value_scales, d, begin, end, scores, padded, out + c);
  }
  for (; c < d; c += 16) {
    weigh_values<kHeads, 1>(rows, values + c, value_scales, d, begin, end, scores, padded, out + c);
  }
}

template <typename Element>
inline void attend_group(const KvLayer& kv, const HeadRows& rows, int begin, int end, int group, const float* q,
                         float scale, float* scores, float* out) {
  const size_t padded = static_cast<size_t>((end - begin + 15) / 16) * 16;
  const size_t d = static_cast<size_t>(kv.head_dim);
  int h = 0;
  for (; h + kHeadsAtOnce <= group; h += kHeadsAtOnce) {
    attend_heads<kHeadsAtOnce, Element>(kv, rows, begin, end, q + h * d, scale, scores + h * padded, out + h * d);
  }
  for (; h < group; ++h) {
    attend_heads<1, Element>(kv, rows, begin, end, q + h * d, scale, scores + h * padded, out + h * d);
  }
}

inline void attend(const KvLayer& kv, const int32_t* block_table, int begin, int end, int kv_head, int group,
                   const float* q, float scale, float* scores, float* out) {
  const HeadRows rows = {block_table, kv.block_tokens, kv.kv_heads, kv_head};
  if (kv.type == KvType::f16) {
    attend_group<uint16_t>(kv, rows, begin, end, group, q, scale, scores, out);
  } else {
    attend_group<int8_t>(kv, rows, begin, end, group, q, scale, scores, out);
  }
}

}  // namespace
}  // namespace moestro
