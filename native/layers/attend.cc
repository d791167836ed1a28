// Attention of the batch: which tokens and kv heads go through a call together, and which thread runs it.
//
// Tokens of a prompt go in blocks, so that a key or value serves many queries. Where there is less to do than threads
// could take, the positions of a token are split into spans instead. Neither changes a bit of the result.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "native/layers/model.h"

namespace moestro {

AttentionQueries Model::queries_at(int token, int tokens, int kv_head) const {
  const size_t width = dims_.q_width(), head = static_cast<size_t>(kv_head) * dims_.group() * dims_.head_dim;
  AttentionQueries queries{};
  queries.block_table = block_tables_.data() + static_cast<size_t>(sequences_[token]) * blocks_per_sequence_;
  queries.kv_head = kv_head;
  queries.group = dims_.group();
  queries.position = positions_[token];
  queries.tokens = tokens;
  queries.window = dims_.sliding_window;
  queries.q = s_.q + token * width + head;
  queries.stride = width;
  queries.scale = 1.0f / std::sqrt(static_cast<float>(dims_.head_dim));
  return queries;
}

void Model::attend(const KvLayer& kv) {
  const int threads = pool_->threads(), heads_to_run = tokens_ * dims_.kv_heads, enough = kItemsPerThread * threads;
  if (threads > 1 && heads_to_run < enough) {
    attend_split(kv);
  } else {
    attend_whole(kv, std::clamp(heads_to_run / enough, 1, attention_tokens(dims_.group())));
  }
}

void Model::attend_whole(const KvLayer& kv, int block_tokens) {
  token_runs_.clear();
  for (int t = 0; t < tokens_; ++t) {
    const bool follows = t > 0 && sequences_[t] == sequences_[t - 1] && positions_[t] == positions_[t - 1] + 1;
    if (follows && token_runs_.back().count < block_tokens) {
      ++token_runs_.back().count;
    } else {
      token_runs_.push_back({t, 1});
    }
  }
  // Blocks of one kv head follow one another: its keys and values stay in the second cache. Late blocks, which have
  // most to do, go first.
  const int runs = static_cast<int>(token_runs_.size());
  const size_t state = attention_scratch(attention_tokens(dims_.group()) * dims_.group(), dims_.head_dim);
  pool_->for_each(runs * dims_.kv_heads, 1, [&](int begin, int end, int worker) {
    float* scratch = s_.attention + worker * attention_floats(dims_);
    for (int item = begin; item < end; ++item) {
      const TokenRun run = token_runs_[runs - 1 - item % runs];
      const AttentionQueries queries = queries_at(run.first, run.count, item / runs);
      const int first = queries.begin(0) / kAttentionSpan;
      const int last = (queries.end(run.count - 1) + kAttentionSpan - 1) / kAttentionSpan;
      kernels_->attention(kv, queries, first, last, scratch, scratch + state);
      for (int t = 0; t < run.count; ++t) {
        float* out = s_.attn + (queries.q - s_.q) + t * queries.stride;
        kernels_->attention_finish(scratch + state + t * span_floats(dims_), queries.group, dims_.head_dim, out);
      }
    }
  });
}

// Spans of all tokens and kv heads, in waves of as many as there are states for; then each is merged into the state of
// its token and kv head, in ascending order.
void Model::attend_split(const KvLayer& kv) {
  struct Piece {
    int item, span;
    bool is_first;
  };
  constexpr int kPiecesMax = 256 * kSpansPerThread;  // 256: the most threads there can be
  Piece wave[kPiecesMax];
  const int pieces_max = std::min(kPiecesMax, kSpansPerThread * pool_->threads());
  const size_t floats = span_floats(dims_);
  float* whole = s_.spans + pieces_max * floats;
  const int items = tokens_ * dims_.kv_heads;
  int pieces = 0;
  const auto run_wave = [&] {
    pool_->for_each(pieces, 1, [&](int begin, int end, int worker) {
      for (int i = begin; i < end; ++i) {
        const int token = wave[i].item / dims_.kv_heads, kv_head = wave[i].item % dims_.kv_heads;
        kernels_->attention(kv, queries_at(token, 1, kv_head), wave[i].span, wave[i].span + 1,
                            s_.attention + worker * attention_floats(dims_), s_.spans + i * floats);
      }
    });
    for (int i = 0; i < pieces; ++i) {
      float* state = whole + wave[i].item * floats;
      if (wave[i].is_first) {
        std::memcpy(state, s_.spans + i * floats, floats * sizeof(float));
      } else {
        kernels_->attention_merge(s_.spans + i * floats, dims_.group(), dims_.head_dim, state);
      }
    }
    pieces = 0;
  };
  for (int item = 0; item < items; ++item) {
    const AttentionQueries queries = queries_at(item / dims_.kv_heads, 1, 0);
    const int first = queries.begin(0) / kAttentionSpan;
    for (int span = first; span * kAttentionSpan < queries.end(0); ++span) {
      wave[pieces++] = {item, span, span == first};
      if (pieces == pieces_max) run_wave();
    }
  }
  run_wave();
  for (int item = 0; item < items; ++item) {
    const AttentionQueries queries = queries_at(item / dims_.kv_heads, 1, item % dims_.kv_heads);
    kernels_->attention_finish(whole + item * floats, queries.group, dims_.head_dim, s_.attn + (queries.q - s_.q));
  }
}

}  // namespace moestro
