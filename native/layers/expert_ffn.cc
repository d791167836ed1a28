// The routed experts of one layer: groups whose planes are in slots run first, the others as their reads land.
// Every (token, rank) pair has an output row of its own, and finish_layer adds them in rank order: what ran first
// never shows in the result.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <new>

#include "native/layers/model.h"

namespace moestro {
namespace {

// Rows of gate and up that one work unit computes: whole groups of the hidden activations, so that the unit can
// also quantise what it made.
constexpr int kUnitRows = 32;

PlaneMatrix plane_matrix(const ExpertPlanes& planes, int level, size_t tiles_before, size_t all_tiles,
                         size_t rows_before, int rows, int cols) {
  PlaneMatrix m{};
  for (int i = 0; i < level; ++i) m.slots[i] = planes.bits[i] + tiles_before * kBitTileBytes;
  m.group_scales = planes.scales + tiles_before * kScaleTileBytes;
  m.row_scales = reinterpret_cast<const uint16_t*>(planes.scales + all_tiles * kScaleTileBytes) + rows_before;
  m.rows = rows;
  m.cols = cols;
  return m;
}

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
      if (assignments + group.count > options_.max_batch_tokens) continue;  // scratch is full: next round
      assignments += group.count;
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
  const size_t hidden = dims_.hidden, inner = dims_.expert_size;
  const size_t tiles = hidden * inner / kTileWeights;
  const Q8Activations input = s_.q8.view(static_cast<int>(hidden));

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

  const int units = static_cast<int>(inner) / kUnitRows;
  const int group_count = static_cast<int>(groups.size());
  pool_->for_each(group_count * units, 1, [&](int begin, int end, int) {
    for (int item = begin; item < end; ++item) {
      const int row = item % units * kUnitRows;
      const ExpertGroup& group = *groups[item / units];
      const size_t first = group.first_row;
      float* gate = s_.hidden_gate + first * inner;
      float* up = s_.hidden_up + first * inner;
      const int e = static_cast<int>(inner), h = static_cast<int>(hidden);
      const PlaneMatrix wg = plane_matrix(group.planes, group.level, 0, 3 * tiles, 0, e, h);
      const PlaneMatrix wu = plane_matrix(group.planes, group.level, tiles, 3 * tiles, inner, e, h);
      kernels_->gemm_q8_planes(wg, options_.tables, group.level, input, token_rows_.data() + first, group.count, row,
                               row + kUnitRows, gate, inner);
      kernels_->gemm_q8_planes(wu, options_.tables, group.level, input, token_rows_.data() + first, group.count, row,
                               row + kUnitRows, up, inner);
      for (size_t i = 0; i < static_cast<size_t>(group.count); ++i) {
        const size_t at = i * inner + row, out = (first + i) * inner + row;
        kernels_->swiglu_f32(gate + at, up + at, kUnitRows, gate + at);
        kernels_->quantize_q8(gate + at, kUnitRows, s_.hidden_q8.q + out, s_.hidden_q8.scale + out / kGroup,
                              s_.hidden_q8.sum + out / kGroup);
      }
    }
  });

  const int down_units = static_cast<int>(hidden) / kUnitRows;
  pool_->for_each(group_count * down_units, 1, [&](int begin, int end, int) {
    for (int item = begin; item < end; ++item) {
      const int row = item % down_units * kUnitRows;
      const ExpertGroup& group = *groups[item / down_units];
      const size_t first = group.first_row;
      const PlaneMatrix wd = plane_matrix(group.planes, group.level, 2 * tiles, 3 * tiles, 2 * inner,
                                          static_cast<int>(hidden), static_cast<int>(inner));
      Q8Activations x = s_.hidden_q8.view(static_cast<int>(inner));
      x.q += first * inner;
      x.scale += first * inner / kGroup;
      x.sum += first * inner / kGroup;
      kernels_->gemm_q8_planes(wd, options_.tables, group.level, x, local_rows_.data(), group.count, row,
                               row + kUnitRows, s_.partial + (partial_used_ + first) * hidden, hidden);
    }
  });

  if (collecting_) {
    for (const ExpertGroup* group : groups) {
      const size_t first = group->first_row;
      Importance& sums = importance_[static_cast<size_t>(layer) * dims_.experts + group->expert];
      sums.tokens += group->count;
      for (int i = 0; i < group->count; ++i) {
        const float* x = s_.xn + static_cast<size_t>(token_rows_[first + i]) * hidden;
        const float* a = s_.hidden_gate + (first + i) * inner;
        for (size_t c = 0; c < hidden; ++c) sums.gate_up[c] += x[c] * x[c];
        for (size_t c = 0; c < inner; ++c) sums.down[c] += a[c] * a[c];
      }
    }
  }
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

Status Model::collect_importance(bool on) {
  collecting_ = false;
  importance_.clear();
  if (!on) return Status();
  const size_t experts = static_cast<size_t>(dims_.layers) * dims_.experts;
  try {
    importance_.resize(experts);
    for (Importance& sums : importance_) {
      sums.gate_up.assign(dims_.hidden, 0.0f);
      sums.down.assign(dims_.expert_size, 0.0f);
    }
  } catch (const std::bad_alloc&) {
    importance_.clear();
    return Status("OUT_OF_MEMORY", "Cannot collect the importance of " + std::to_string(experts) +
                                       " experts: the system has no memory for the sums of their inputs");
  }
  collecting_ = true;
  return Status();
}

const Importance* Model::importance(int layer, int expert) const {
  return collecting_ ? &importance_[static_cast<size_t>(layer) * dims_.experts + expert] : nullptr;
}

}  // namespace moestro
