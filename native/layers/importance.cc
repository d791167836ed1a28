// The inputs of every expert, summed up for calibration: squares of columns, or their products within blocks of
// columns, weighted by the square of the routing weight, as an error of the expert's output is.
#include <algorithm>
#include <new>

#include "native/layers/model.h"

namespace moestro {
namespace {

// sums [cols][width] += weight^2 x_i x_k for the columns k of i's block.
void add_products(const Kernels& kernels, const float* x, int cols, int width, float weight, float* sums) {
  for (int i = 0; i < cols; ++i) {
    const float factor = weight * weight * x[i];
    float* row = sums + static_cast<size_t>(i) * width;
    if (width == 1) {
      row[0] += factor * x[i];
      continue;
    }
    const int first = i / width * width;
    kernels.axpy_f32(factor, x + first, std::min(width, cols - first), row);
  }
}

}  // namespace

void Model::add_importance(int layer, std::span<ExpertGroup*> groups) {
  const size_t hidden = dims_.hidden, inner = dims_.expert_size;
  // One expert is one thread's: its tokens are added in one order.
  pool_->for_each(static_cast<int>(groups.size()), 1, [&](int begin, int end, int) {
    for (int g = begin; g < end; ++g) {
      const ExpertGroup& group = *groups[g];
      Importance& sums = importance_[static_cast<size_t>(layer) * dims_.experts + group.expert];
      sums.tokens += group.count;
      for (size_t i = 0; i < static_cast<size_t>(group.count); ++i) {
        const float weight = route_weights_[group.assignments[i]];
        const float* x = s_.xn + static_cast<size_t>(token_rows_[group.first_row + i]) * hidden;
        const float* a = s_.hidden_gate + (group.first_row + i) * inner;
        add_products(*kernels_, x, dims_.hidden, importance_width_, weight, sums.gate_up.data());
        add_products(*kernels_, a, dims_.expert_size, importance_width_, weight, sums.down.data());
      }
    }
  });
}

Status Model::collect_importance(int width) {
  importance_width_ = 0;
  importance_.clear();
  if (width == 0) return Status();
  const size_t experts = static_cast<size_t>(dims_.layers) * dims_.experts;
  try {
    route_weights_.assign(static_cast<size_t>(options_.max_batch_tokens) * dims_.top_k, 0.0f);
    importance_.resize(experts);
    for (size_t i = 0; i < experts; ++i) {
      if (!dims_.is_moe[i / dims_.experts]) continue;
      importance_[i].gate_up.assign(static_cast<size_t>(dims_.hidden) * width, 0.0f);
      importance_[i].down.assign(static_cast<size_t>(dims_.expert_size) * width, 0.0f);
    }
  } catch (const std::bad_alloc&) {
    importance_.clear();
    return Status("OUT_OF_MEMORY", "Cannot collect the importance of " + std::to_string(experts) +
                                       " experts: the system has no memory for the sums of their inputs");
  }
  importance_width_ = width;
  return Status();
}

const Importance* Model::importance(int layer, int expert) const {
  return importance_width_ > 0 ? &importance_[static_cast<size_t>(layer) * dims_.experts + expert] : nullptr;
}

}  // namespace moestro
