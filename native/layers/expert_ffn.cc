// The routed experts of one layer: groups whose planes are in slots run first, the others as their reads land.
// Every (token, rank) pair has an output row of its own, and finish_layer adds them in rank order: what ran first
// never shows in the result.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <new>

#include "native/layers/expert_batch.h"
#include "native/layers/model.h"

namespace moestro {
namespace {

uint64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

uint64_t Model::run_experts(int layer, std::span<ExpertGroup> groups, ReadGate& gate) {
  uint64_t stall_ns = 0;
  size_t left = groups.size();
  for (ExpertGroup& group : groups) group.error = -1;  // -1: not run yet
  bool first_pass = true;
  while (left > 0) {
    gate.advance(false);
    ready_.clear();
    int assignments = 0;
    size_t blocks = 0;
    for (ExpertGroup& group : groups) {
      if (group.error != -1) continue;
      int error = 0;
      if (group.ticket >= 0 && !gate.finished(group.ticket, &error)) continue;
      group.waited = !first_pass;
      if (error != 0) {
        group.error = error;
        --left;
        continue;
      }
      const size_t own_blocks = packed_blocks(*kernels_, group.count);
      const bool has_rows = assignments + group.count <= options_.max_batch_tokens;
      if (!has_rows || blocks + own_blocks > expert_blocks(options_.max_batch_tokens)) continue;  // next round
      assignments += group.count;
      blocks += own_blocks;
      group.error = 0;
      --left;
      ready_.push_back(&group);
    }
    if (!ready_.empty()) {
      run_ready_experts(layer, ready_);
      continue;
    }
    if (left == 0) break;
    first_pass = false;
    const uint64_t from = now_ns();
    const bool more = gate.advance(true);
    stall_ns += now_ns() - from;
    if (more) continue;
    // Nothing is on its way and yet a group waits: a ticket that was never submitted. An error, never a hang.
    for (ExpertGroup& group : groups) {
      int error = 0;
      if (group.error == -1 && !gate.finished(group.ticket, &error)) {
        group.error = ENOENT;
        --left;
      }
    }
  }
  return stall_ns;
}

void Model::run_ready_experts(int layer, std::span<ExpertGroup*> groups) {
  const size_t hidden = dims_.hidden;

  // Consecutive rows of hidden activations and of partial outputs for each group.
  int rows = 0;
  for (ExpertGroup* group : groups) {
    for (int i = 0; i < group->count; ++i) {
      token_rows_[rows + i] = group->assignments[i] / dims_.top_k;
      partial_row_[group->assignments[i]] = partial_used_ + rows + i;
    }
    group->first_row = rows;
    rows += group->count;
  }
  const ExpertBatch batch = {
      token_rows_.data(), local_rows_.data(), s_.hidden_gate,   s_.hidden_up,
      s_.hidden_q8,       s_.input_blocks,    s_.hidden_blocks, s_.partial + partial_used_ * hidden};
  run_expert_batch(*kernels_, *pool_, options_.tables, {dims_.hidden, dims_.expert_size}, s_.q8.view(dims_.hidden),
                   groups, batch);

  if (importance_width_ > 0) add_importance(layer, groups);
  partial_used_ += rows;
}

void Model::finish_layer(int layer, const float* weights) {
  const size_t hidden = dims_.hidden;
  const bool shared = layers_[layer].ffn_gate.codes != nullptr;
  const bool moe = dims_.is_moe[layer];
  const int k = dims_.top_k;
  pool_->for_each(tokens_, std::max(1, tokens_ / (pool_->threads() * 4)), [&](int begin, int end, int) {
    for (size_t t = begin; t < static_cast<size_t>(end); ++t) {
      float* x = s_.x + t * hidden;
      if (shared) kernels_->axpy_f32(1.0f, s_.shared + t * hidden, dims_.hidden, x);
      if (!moe) continue;
      for (int r = 0; r < k; ++r) {
        const int row = partial_row_[t * k + r];
        if (row >= 0) kernels_->axpy_f32(weights[t * k + r], s_.partial + row * hidden, dims_.hidden, x);
      }
    }
  });
}

}  // namespace moestro
