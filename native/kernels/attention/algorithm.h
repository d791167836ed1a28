// The algorithm of attention, for any 16 lanes. See attention.h for the order of all sums.
//
// Lanes are positions for scores (keys lie so in the cache) and columns for values, so that both are the same small
// matrix product: numbers of some queries, each for all lanes of some rows. Calls of several queries first widen a
// block of keys and values to float in scratch; those of few read the cache itself.
#pragma once
#include "native/kernels/simd/math.h"

namespace moestro {
namespace {

constexpr int kBlockChunks = kAttentionBlock / kKvChunk;
constexpr int kWidenFrom = 4;  // queries for which widening pays
constexpr int kQueriesAtOnce = 4;

MOESTRO_INLINE F32x16 load_element(const float* p) { return load(p); }
MOESTRO_INLINE F32x16 load_element(const uint16_t* p) { return load_f16(p); }
MOESTRO_INLINE F32x16 load_element(const int8_t* p) { return load_i8(p); }
MOESTRO_INLINE float larger(float a, float b) { return a > b ? a : b; }

// Vectors per query that fit the registers for kQ queries.
template <int kQ>
constexpr int kVectors = kFloatsAtOnce / kQ >= 4   ? 4
                         : kFloatsAtOnce / kQ >= 2 ? 2
                                                   : 1;

// The 16 positions of chunk i: keys [head_dim][16], values [16][head_dim], scales [16] or null. What comes next in the
// cache is asked for while this is multiplied: the same places of the next block, whose elements have `next_bytes`.
template <typename Element>
struct Block {
  const uint8_t *next_keys[kBlockChunks], *next_values[kBlockChunks];
  size_t next_bytes;
  const Element *keys[kBlockChunks], *values[kBlockChunks];
  const float *key_scales[kBlockChunks], *value_scales[kBlockChunks];
};

// Positions of a block that a query attends; none where begin >= end.
struct Range {
  int begin, end;
};

struct State {
  float *out, *sum, *most;
};
MOESTRO_INLINE State state_at(float* states, int query, int d) {
  float* at = states + query * attention_state(d);
  return {at, at + d, at + d + 16};
}

// acc[q][v] += a[q][i] * rows[v][i] for i in [from, to), ascending.
template <int kQ, int kV, bool kAsksAhead, typename Element>
MOESTRO_INLINE void multiply(const float* a, size_t a_stride, int from, int to, const Element* const* rows, size_t step,
                             const uint8_t* const* next, size_t next_step, F32x16 (*acc)[kV]) {
  for (int i = from; i < to; ++i) {
    F32x16 row[kV];
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) row[v] = load_element(rows[v] + i * step);
#pragma GCC unroll 4
    for (int v = 0; kAsksAhead && v < kV; ++v) prefetch(next[v] + i * next_step);
#pragma GCC unroll 4
    for (int q = 0; q < kQ; ++q) {
      const F32x16 factor = set1(a[q * a_stride + i]);
#pragma GCC unroll 4
      for (int v = 0; v < kV; ++v) acc[q][v] = fma(factor, row[v], acc[q][v]);
    }
  }
}

// Scores of kQ queries and the chunks [chunk, chunk + kV): scores [query][kAttentionBlock].
template <int kQ, int kV, bool kAsksAhead, typename Element>
inline void score(const Block<Element>& block, int chunk, int d, const float* q, float scale, float* scores) {
  F32x16 acc[kQ][kV];
#pragma GCC unroll 4
  for (int i = 0; i < kQ; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) acc[i][v] = set1(0.0f);
  }
  multiply<kQ, kV, kAsksAhead>(q, d, 0, d, block.keys + chunk, kKvChunk, block.next_keys + chunk,
                               kKvChunk * block.next_bytes, acc);
#pragma GCC unroll 4
  for (int v = 0; v < kV; ++v) {
    const float* scales = block.key_scales[chunk + v];
    const F32x16 key_scales = scales != nullptr ? load(scales) : set1(1.0f);
#pragma GCC unroll 4
    for (int i = 0; i < kQ; ++i) {
      store(scores + i * kAttentionBlock + (chunk + v) * kKvChunk, mul(mul(acc[i][v], key_scales), set1(scale)));
    }
  }
}
template <int kQ, bool kAsksAhead, typename Element>
inline void score_chunks(const Block<Element>& block, int first, int last, int d, const float* q, float scale,
                         float* scores) {
  int chunk = first;
  for (; chunk + kVectors<kQ> <= last; chunk += kVectors<kQ>) {
    score<kQ, kVectors<kQ>, kAsksAhead>(block, chunk, d, q, scale, scores);
  }
  for (; chunk < last; ++chunk) score<kQ, 1, kAsksAhead>(block, chunk, d, q, scale, scores);
}

// Scores become the weights of values; sum and output so far are brought to the new largest score.
inline void soften(const Range& range, const float* const* value_scales, int d, float* scores, const State& state) {
  const int first = range.begin / kKvChunk, last = (range.end + kKvChunk - 1) / kKvChunk;
  for (int i = first * kKvChunk; i < range.begin; ++i) scores[i] = -__builtin_inff();
  for (int i = range.end; i < last * kKvChunk; ++i) scores[i] = -__builtin_inff();
  F32x16 largest = set1(-__builtin_inff());
  for (int chunk = first; chunk < last; ++chunk) largest = max(largest, load(scores + chunk * kKvChunk));
  const float before = state.most[0], most = larger(before, reduce_max(largest));
  F32x16 sum = load(state.sum);
  if (most != before) {  // otherwise the factor is 1
    const F32x16 factor = exp(set1(before - most));
    sum = mul(sum, factor);
    for (int c = 0; c < d; c += 16) store(state.out + c, mul(load(state.out + c), factor));
    store(state.most, set1(most));
  }
  for (int chunk = first; chunk < last; ++chunk) {
    float* at = scores + chunk * kKvChunk;
    const F32x16 e = exp(sub(load(at), set1(most)));
    sum = add(sum, e);
    store(at, value_scales[chunk] != nullptr ? mul(e, load(value_scales[chunk])) : e);
  }
  store(state.sum, sum);
}

// out[q][column ..] += weights * values over `range`, for kQ queries.
template <int kQ, int kV, bool kAsksAhead, typename Element>
inline void weigh_part(const Block<Element>& block, const Range& range, int d, int column, const float* weights,
                       float* states) {
  const size_t stride = attention_state(d);
  F32x16 acc[kQ][kV];
#pragma GCC unroll 4
  for (int i = 0; i < kQ; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) acc[i][v] = load(states + i * stride + column + 16 * v);
  }
  for (int position = range.begin; position < range.end;) {
    const int chunk = position / kKvChunk, from = chunk * kKvChunk;
    const int stop = range.end < from + kKvChunk ? range.end : from + kKvChunk;
    const Element* rows[kV];
    const uint8_t* next[kV];
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) {
      rows[v] = block.values[chunk] + column + 16 * v;
      next[v] = block.next_values[chunk] + (column + 16 * v) * block.next_bytes;
    }
    multiply<kQ, kV, kAsksAhead>(weights + from, kAttentionBlock, position - from, stop - from, rows, d, next,
                                 d * block.next_bytes, acc);
    position = stop;
  }
#pragma GCC unroll 4
  for (int i = 0; i < kQ; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) store(states + i * stride + column + 16 * v, acc[i][v]);
  }
}
template <int kQ, bool kAsksAhead, typename Element>
inline void weigh(const Block<Element>& block, const Range& range, int d, int column, int columns, const float* weights,
                  float* states) {
  int c = column;
  for (; c + 16 * kVectors<kQ> <= column + columns; c += 16 * kVectors<kQ>) {
    weigh_part<kQ, kVectors<kQ>, kAsksAhead>(block, range, d, c, weights, states);
  }
  for (; c < column + columns; c += 16) weigh_part<kQ, 1, kAsksAhead>(block, range, d, c, weights, states);
}

// The same for queries whose ranges differ: what all of them attend is weighed at once, the rest one by one.
template <bool kAsksAhead, typename Element>
inline void weigh_tile(const Block<Element>& block, const Range* ranges, int d, int column, int columns,
                       const float* weights, float* states) {
  Range common = ranges[0];
  for (int i = 1; i < kQueriesAtOnce; ++i) {
    if (ranges[i].begin > common.begin) common.begin = ranges[i].begin;
    if (ranges[i].end < common.end) common.end = ranges[i].end;
  }
  const bool shares = common.begin < common.end;
  for (int i = 0; i < kQueriesAtOnce; ++i) {
    const Range before = {ranges[i].begin, shares ? common.begin : ranges[i].end};
    if (before.begin >= before.end) continue;
    weigh<1, false>(block, before, d, column, columns, weights + i * kAttentionBlock, states + i * attention_state(d));
  }
  if (!shares) return;
  weigh<kQueriesAtOnce, kAsksAhead>(block, common, d, column, columns, weights, states);
  for (int i = 0; i < kQueriesAtOnce; ++i) {
    if (common.end >= ranges[i].end) continue;
    const Range after = {common.end, ranges[i].end};
    weigh<1, false>(block, after, d, column, columns, weights + i * kAttentionBlock, states + i * attention_state(d));
  }
}

// What stays the same through a call. q [count][head_dim].
struct Call {
  const KvLayer* kv;
  const AttentionQueries* queries;
  const float* q;
  float *wide_keys, *wide_values, *scores;
};

// The three steps of queries [query, query + kQ), which only the first of a block take with kAsksAhead.
template <int kQ, bool kAsksAhead, typename Element>
inline void score_queries(const Call& call, const Block<Element>& block, int first, int last, int query) {
  const size_t d = call.kv->head_dim;
  score_chunks<kQ, kAsksAhead>(block, first, last, static_cast<int>(d), call.q + query * d, call.queries->scale,
                               call.scores + query * kAttentionBlock);
}
template <int kQ, bool kAsksAhead, typename Element>
inline void weigh_queries(const Call& call, const Block<Element>& block, const Range* ranges, int column, int query,
                          float* states) {
  const int d = call.kv->head_dim, group = call.queries->group, columns = d - column < 64 ? d - column : 64;
  const float* weights = call.scores + query * kAttentionBlock;
  float* state = states + query * attention_state(d);
  if constexpr (kQ == 1) {
    weigh<1, kAsksAhead>(block, ranges[query / group], d, column, columns, weights, state);
  } else {
    Range tile[kQ];
    for (int i = 0; i < kQ; ++i) tile[i] = ranges[(query + i) / group];
    weigh_tile<kAsksAhead>(block, tile, d, column, columns, weights, state);
  }
}

// Adds one block to the states [count] of a span. ranges [tokens]; chunks [first, last) hold all of them.
template <typename Element>
inline void attend_block(const Call& call, const Block<Element>& block, const Range* ranges, int first, int last,
                         float* states) {
  const int d = call.kv->head_dim, count = call.queries->count();
  const int tiled = count / kQueriesAtOnce * kQueriesAtOnce;
  if (tiled > 0) score_queries<kQueriesAtOnce, true>(call, block, first, last, 0);
  for (int query = kQueriesAtOnce; query < tiled; query += kQueriesAtOnce) {
    score_queries<kQueriesAtOnce, false>(call, block, first, last, query);
  }
  if (tiled == 0) score_queries<1, true>(call, block, first, last, 0);
  for (int query = tiled == 0 ? 1 : tiled; query < count; ++query) {
    score_queries<1, false>(call, block, first, last, query);
  }
  for (int query = 0; query < count; ++query) {
    const Range& range = ranges[query / call.queries->group];
    if (range.begin >= range.end) continue;
    soften(range, block.value_scales, d, call.scores + query * kAttentionBlock, state_at(states, query, d));
  }
  // 64 columns of a widened block stay in the first cache for all queries.
  for (int column = 0; column < d; column += 64) {
    if (tiled > 0) weigh_queries<kQueriesAtOnce, true>(call, block, ranges, column, 0, states);
    for (int query = kQueriesAtOnce; query < tiled; query += kQueriesAtOnce) {
      weigh_queries<kQueriesAtOnce, false>(call, block, ranges, column, query, states);
    }
    if (tiled == 0) weigh_queries<1, true>(call, block, ranges, column, 0, states);
    for (int query = tiled == 0 ? 1 : tiled; query < count; ++query) {
      weigh_queries<1, false>(call, block, ranges, column, query, states);
    }
  }
}

inline size_t row_of(const Call& call, int position) {
  const KvLayer& kv = *call.kv;
  const size_t block = static_cast<size_t>(call.queries->block_table[position / kv.block_tokens]);
  return (block * kv.kv_heads + call.queries->kv_head) * kv.block_tokens + position % kv.block_tokens;
}

// Finds the chunks [first, last) of the block at `position` in the cache; those outside are null.
template <typename Element>
inline Block<Element> find_block(const Call& call, int position, int first, int last) {
  const KvLayer& kv = *call.kv;
  const bool has_scales = kv.type == KvType::int8;
  const int end = call.queries->end(call.queries->tokens - 1);
  Block<Element> block = {};
  block.next_bytes = sizeof(Element);
  for (int chunk = first; chunk < last; ++chunk) {
    const int at = position + chunk * kKvChunk;
    const size_t row = row_of(call, at), d = kv.head_dim;
    block.keys[chunk] = reinterpret_cast<const Element*>(kv.k) + row * d;
    block.values[chunk] = reinterpret_cast<const Element*>(kv.v) + row * d;
    if (has_scales) block.key_scales[chunk] = kv.k_scale + row;
    if (has_scales) block.value_scales[chunk] = kv.v_scale + row;
    const size_t next = at + kAttentionBlock < end ? row_of(call, at + kAttentionBlock) : row;
    block.next_keys[chunk] = kv.k + next * d * sizeof(Element);
    block.next_values[chunk] = kv.v + next * d * sizeof(Element);
  }
  return block;
}

template <typename Element>
inline const float* widen_chunk(const Element* from, int d, float* to) {
  for (int i = 0; i < kKvChunk * d; i += 16) store(to + i, load_element(from + i));
  return to;
}
template <typename Element>
inline Block<float> widen(const Call& call, const Block<Element>& block, int first, int last) {
  const int d = call.kv->head_dim;
  Block<float> wide = {};
  wide.next_bytes = sizeof(Element);
  for (int chunk = first; chunk < last; ++chunk) {
    const size_t at = static_cast<size_t>(chunk) * kKvChunk * d;
    wide.keys[chunk] = widen_chunk(block.keys[chunk], d, call.wide_keys + at);
    wide.values[chunk] = widen_chunk(block.values[chunk], d, call.wide_values + at);
    wide.next_keys[chunk] = block.next_keys[chunk];
    wide.next_values[chunk] = block.next_values[chunk];
    wide.key_scales[chunk] = block.key_scales[chunk];
    wide.value_scales[chunk] = block.value_scales[chunk];
  }
  return wide;
}

inline void clear_state(const State& state, int d) {
  for (int c = 0; c < d; c += 16) store(state.out + c, set1(0.0f));
  store(state.sum, set1(0.0f));
  store(state.most, set1(-__builtin_inff()));
}
inline void copy_state(const State& from, int d, const State& to) {
  for (int c = 0; c < d; c += 16) store(to.out + c, load(from.out + c));
  store(to.sum, load(from.sum));
  store(to.most, load(from.most));
}
inline void merge_state(const State& later, int d, const State& state) {
  const float most = larger(state.most[0], later.most[0]);
  const F32x16 keep = exp(set1(state.most[0] - most)), take = exp(set1(later.most[0] - most));
  for (int c = 0; c < d; c += 16) {
    store(state.out + c, fma(load(later.out + c), take, mul(load(state.out + c), keep)));
  }
  store(state.sum, fma(load(later.sum), take, mul(load(state.sum), keep)));
  store(state.most, set1(most));
}

// Adds the blocks of [begin, end), which lie in one span, to `states`.
template <typename Element>
inline void attend_span(const Call& call, int begin, int end, float* states) {
  const AttentionQueries& queries = *call.queries;
  for (int query = 0; query < queries.count(); ++query) {
    clear_state(state_at(states, query, call.kv->head_dim), call.kv->head_dim);
  }
  for (int at = begin / kAttentionBlock * kAttentionBlock; at < end; at += kAttentionBlock) {
    Range ranges[kAttentionQueries];
    int first = kBlockChunks, last = 0;
    for (int t = 0; t < queries.tokens; ++t) {
      Range& range = ranges[t];
      range.begin = queries.begin(t) > at ? queries.begin(t) - at : 0;
      range.end = queries.end(t) - at < kAttentionBlock ? queries.end(t) - at : kAttentionBlock;
      if (range.begin >= range.end) continue;
      if (range.begin / kKvChunk < first) first = range.begin / kKvChunk;
      if ((range.end + kKvChunk - 1) / kKvChunk > last) last = (range.end + kKvChunk - 1) / kKvChunk;
    }
    const Block<Element> block = find_block<Element>(call, at, first, last);
    if (queries.count() >= kWidenFrom) {
      attend_block(call, widen(call, block, first, last), ranges, first, last, states);
    } else {
      attend_block(call, block, ranges, first, last, states);
    }
  }
}

template <typename Element>
inline void attend_spans(const Call& call, int first, int last, float* span_states, float* states) {
  const AttentionQueries& queries = *call.queries;
  const int d = call.kv->head_dim;
  for (int span = first; span < last; ++span) {
    const int from = span * kAttentionSpan, to = from + kAttentionSpan;
    const int begin = queries.begin(0) > from ? queries.begin(0) : from;
    const int end = queries.end(queries.tokens - 1) < to ? queries.end(queries.tokens - 1) : to;
    if (begin >= end) continue;
    attend_span<Element>(call, begin, end, span_states);
    for (int query = 0; query < queries.count(); ++query) {
      const int t = query / queries.group;
      if (queries.begin(t) >= to || queries.end(t) <= from) continue;
      const bool is_first = span == first || queries.begin(t) >= from;
      const State own = state_at(span_states, query, d), state = state_at(states, query, d);
      is_first ? copy_state(own, d, state) : merge_state(own, d, state);
    }
  }
}

inline void attend(const KvLayer& kv, const AttentionQueries& queries, int first, int last, float* scratch,
                   float* states) {
  const size_t d = kv.head_dim, count = queries.count();
  Call call = {&kv, &queries, queries.q, scratch, scratch + kAttentionBlock * d, scratch + 2 * kAttentionBlock * d};
  float* q = call.scores + count * kAttentionBlock;
  if (queries.tokens > 1) {
    const size_t width = queries.group * d;
    for (int t = 0; t < queries.tokens; ++t) {
      for (size_t c = 0; c < width; c += 16) store(q + t * width + c, load(queries.q + t * queries.stride + c));
    }
    call.q = q;
  }
  if (kv.type == KvType::f16) {
    attend_spans<uint16_t>(call, first, last, q + count * d, states);
  } else {
    attend_spans<int8_t>(call, first, last, q + count * d, states);
  }
}

inline void merge(const float* later, int queries, int d, float* states) {
  for (int query = 0; query < queries; ++query) {
    merge_state(state_at(const_cast<float*>(later), query, d), d, state_at(states, query, d));
  }
}

inline void finish(const float* states, int queries, int d, float* out) {
  for (int query = 0; query < queries; ++query) {
    const State state = state_at(const_cast<float*>(states), query, d);
    const F32x16 factor = set1(1.0f / reduce_add(load(state.sum)));
    for (int c = 0; c < d; c += 16) store(out + static_cast<size_t>(query) * d + c, mul(load(state.out + c), factor));
  }
}

}  // namespace
}  // namespace moestro
