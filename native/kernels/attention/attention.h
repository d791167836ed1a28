// Attention over a blocked KV cache, for consecutive tokens of one sequence and the query heads that share a kv head.
//
// A query (a head of a token) attends positions [begin, end): end is its own position + 1, begin 0 or, with a sliding
// window, as far back as that reaches. Its output is made in this order, in which nothing but stored positions counts:
//
//   score  of a position: fma(q[c], k[c], sum) for c ascending from sum 0, times the key's scale, times `scale`
//   block  kAttentionBlock positions, aligned: most = max(most so far, largest score); sum and output so far are
//          multiplied by exp(most so far - most); e = exp(score - most); lane i % 16 of sum gets e of position i, then
//          fma(e * (v scale), v, output), all in ascending position
//   span   kAttentionSpan positions, aligned: starts with sum and output 0 and most -inf; merged into what the spans
//          before gave: both are scaled by exp(own most - larger most), the later one by fma
//   end    output * (1 / sum over lanes)
//
// Positions outside [begin, end) are never multiplied with anything: what stands there may be no number. Blocks and
// spans lie at absolute positions, so the result is the same bits whatever else is computed with it, and spans may be
// computed by several threads. Sources: online softmax, arXiv:1805.02867; in blocks, FlashAttention, arXiv:2205.14135;
// PagedAttention, arXiv:2309.06180; grouped queries, arXiv:2305.13245.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/formats.h"
#include "native/kernels/variant.h"

namespace moestro {

constexpr int kAttentionBlock = 64;
constexpr int kAttentionSpan = 256;
constexpr int kAttentionQueries = 32;  // of one call, where one token does not have more

// Tokens of one call at most: with more, a widened key or value would not serve more queries at a time.
constexpr int attention_tokens(int group) { return group >= kAttentionQueries ? 1 : kAttentionQueries / group; }

// `tokens` tokens at `position` and the positions after it, 1 to attention_tokens(group). Head h of token t is
// q[t * stride + h * head_dim ..], f32, not yet scaled. block_table maps position / block_tokens to a block. window: 0,
// or how many positions a token attends at most, its own among them.
struct AttentionQueries {
  const int32_t* block_table;
  int kv_head, group, position, tokens, window;
  const float* q;
  size_t stride;
  float scale;

  int count() const { return tokens * group; }
  int begin(int t) const { return window > 0 && position + t + 1 > window ? position + t + 1 - window : 0; }
  int end(int t) const { return position + t + 1; }
};

// A query in work: output f32 [head_dim], sums [16] and 16 times the largest score. Queries follow one another, the
// heads of a token together.
constexpr size_t attention_state(int head_dim) { return static_cast<size_t>(head_dim) + 32; }

// Floats of scratch for one call: a block of keys and of values, queries and scores, states of a span.
constexpr size_t attention_scratch(int queries, int head_dim) {
  const size_t n = queries, d = head_dim;
  return 2 * kAttentionBlock * d + n * (d + kAttentionBlock + attention_state(head_dim));
}

// Leaves in `state` what spans [first, last) give for every query that has positions in them; others stay as they were.
// head_dim % 16 == 0; state and scratch aligned to 64 bytes.
using Attention = void(const KvLayer& kv, const AttentionQueries& queries, int first, int last, float* scratch,
                       float* state);
Attention attention_scalar, attention_neon, attention_avx2, attention_avx512;
Variants<Attention> attention_variants();

// Merges `later`, which attention() left for the one span that follows, into `state`.
using AttentionMerge = void(const float* later, int queries, int head_dim, float* state);
AttentionMerge attention_merge_scalar, attention_merge_neon, attention_merge_avx2, attention_merge_avx512;
Variants<AttentionMerge> attention_merge_variants();

// out [queries][head_dim] of one token: output / sum.
using AttentionFinish = void(const float* state, int queries, int head_dim, float* out);
AttentionFinish attention_finish_scalar, attention_finish_neon, attention_finish_avx2, attention_finish_avx512;
Variants<AttentionFinish> attention_finish_variants();

}  // namespace moestro
