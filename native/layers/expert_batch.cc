#include "native/layers/expert_batch.h"

#include <algorithm>
#include <cstring>

namespace moestro {
namespace {

// What the three runs of the pool share.
struct Run {
  const Kernels& kernels;
  const PlaneTables& tables;
  const ExpertShape& shape;
  const Q8Activations& input;
  std::span<ExpertGroup* const> groups;
  const ExpertBatch& batch;

  bool is_packed(const ExpertGroup& group) const { return group.count >= kernels.packed_tokens; }
  const Q8Block* input_of(const ExpertGroup& group) const {
    return batch.input_blocks + static_cast<size_t>(group.first_block) * (shape.hidden / kGroup);
  }
  Q8Block* hidden_of(const ExpertGroup& group) const {
    return batch.hidden_blocks + static_cast<size_t>(group.first_block) * (shape.inner / kGroup);
  }

  void pack(int block) const;
  void gate_and_up(const ExpertGroup& group, int row, int end, const ExpertGroup* next) const;
  void down(const ExpertGroup& group, int row, int end, const ExpertGroup* next) const;
};

// `row` of `next` at `level` comes after `w`.
void follow(PlaneMatrix* w, const PlaneMatrix& next, int level, int row) {
  const size_t tile = static_cast<size_t>(row / kTileRows) * (next.cols / kGroup);
  for (int i = 0; i < level; ++i) w->next_slots[i] = next.slots[i] + tile * kBitTileBytes;
  w->next_scales = next.group_scales + tile * kScaleTileBytes;
}

// Copies the inputs of 16 pairs side by side; `block` counts those of all packed groups.
void Run::pack(int block) const {
  const size_t input_groups = shape.hidden / kGroup;
  for (const ExpertGroup* group : groups) {
    const int first = (block - group->first_block) * kBlockTokens;
    if (!is_packed(*group) || first < 0 || first >= group->count) continue;
    Q8Block* out = batch.input_blocks + block * input_groups;
    const int tokens = std::min(kBlockTokens, group->count - first);
    for (int t = 0; t < tokens; ++t) {
      const size_t row = batch.token_rows[group->first_row + first + t];
      const int8_t* q = input.q + row * shape.hidden;
      const float* scale = input.scale + row * input_groups;
      const int32_t* sum = input.sum + row * input_groups;
      for (size_t g = 0; g < input_groups; ++g) {
        std::memcpy(out[g].q[t], q + g * kGroup, kGroup);
        out[g].scale[t] = scale[g];
        out[g].bias[t] = -128 * sum[g];
      }
    }
  }
}

// Rows [row, end) of gate and up, the activation of their products, and its int8 form. The same thread goes on with the
// first rows of `next`, unless null.
void Run::gate_and_up(const ExpertGroup& group, int row, int end, const ExpertGroup* next) const {
  const size_t inner = shape.inner, first = group.first_row;
  float* const gate = batch.hidden_gate + first * inner;
  float* const up = batch.hidden_up + first * inner;
  const bool packed = is_packed(group);
  for (const ExpertMatrix which : {ExpertMatrix::gate, ExpertMatrix::up}) {
    PlaneMatrix w = expert_matrix(group.planes, shape, group.level, which);
    if (which == ExpertMatrix::gate) {
      follow(&w, expert_matrix(group.planes, shape, group.level, ExpertMatrix::up), group.level, row);
    } else if (next != nullptr && next->level == group.level) {
      follow(&w, expert_matrix(next->planes, shape, next->level, ExpertMatrix::gate), next->level, 0);
    }
    float* const y = which == ExpertMatrix::gate ? gate : up;
    if (packed) {
      kernels.gemm_q8_planes_packed(w, tables, group.level, input_of(group), group.count, row, end, y, inner);
    } else {
      kernels.gemm_q8_planes(w, tables, group.level, input, batch.token_rows + first, group.count, row, end, y, inner);
    }
  }
  for (size_t i = 0; i < static_cast<size_t>(group.count); ++i) {
    float* const x = gate + i * inner + row;
    kernels.swiglu_f32(x, up + i * inner + row, end - row, x);
    if (!packed) {
      const size_t out = (first + i) * inner + row;
      kernels.quantize_q8(x, end - row, batch.hidden_q8.q + out, batch.hidden_q8.scale + out / kGroup,
                          batch.hidden_q8.sum + out / kGroup);
      continue;
    }
    Q8Block* const blocks = hidden_of(group) + i / kBlockTokens * (inner / kGroup);
    const size_t t = i % kBlockTokens;
    for (int g = row / kGroup; g < end / kGroup; ++g) {
      int32_t sum;
      kernels.quantize_q8(x + g * kGroup - row, kGroup, blocks[g].q[t], blocks[g].scale + t, &sum);
      blocks[g].bias[t] = -128 * sum;
    }
  }
}

void Run::down(const ExpertGroup& group, int row, int end, const ExpertGroup* next) const {
  const size_t hidden = shape.hidden, inner = shape.inner, first = group.first_row;
  PlaneMatrix w = expert_matrix(group.planes, shape, group.level, ExpertMatrix::down);
  if (next != nullptr && next->level == group.level) {
    follow(&w, expert_matrix(next->planes, shape, next->level, ExpertMatrix::down), next->level, 0);
  }
  float* const y = batch.partial + first * hidden;
  if (is_packed(group)) {
    kernels.gemm_q8_planes_packed(w, tables, group.level, hidden_of(group), group.count, row, end, y, hidden);
    return;
  }
  Q8Activations x = batch.hidden_q8.view(shape.inner);
  x.q += first * inner;
  x.scale += first * inner / kGroup;
  x.sum += first * inner / kGroup;
  kernels.gemm_q8_planes(w, tables, group.level, x, batch.local_rows, group.count, row, end, y, hidden);
}

}  // namespace

PlaneMatrix expert_matrix(const ExpertPlanes& planes, const ExpertShape& shape, int level, ExpertMatrix which) {
  const size_t hidden = shape.hidden, inner = shape.inner;
  const size_t tiles = hidden * inner / kTileWeights;  // of each of the three
  const size_t before = which == ExpertMatrix::gate ? 0 : which == ExpertMatrix::up ? 1 : 2;
  const bool is_down = which == ExpertMatrix::down;
  PlaneMatrix m{};
  for (int i = 0; i < level; ++i) m.slots[i] = planes.bits[i] + before * tiles * kBitTileBytes;
  m.group_scales = planes.scales + before * tiles * kScaleTileBytes;
  m.row_scales = reinterpret_cast<const uint16_t*>(planes.scales + 3 * tiles * kScaleTileBytes) + before * inner;
  m.rows = is_down ? shape.hidden : shape.inner;
  m.cols = is_down ? shape.inner : shape.hidden;
  return m;
}

int packed_blocks(const Kernels& kernels, int count) {
  return count >= kernels.packed_tokens ? (count + kBlockTokens - 1) / kBlockTokens : 0;
}

void run_expert_batch(const Kernels& kernels, ThreadPool& pool, const PlaneTables& tables, const ExpertShape& shape,
                      const Q8Activations& input, std::span<ExpertGroup*> groups, const ExpertBatch& batch) {
  // The most work first: what is left at the end, when threads run out of units, is small.
  std::sort(groups.begin(), groups.end(), [](const ExpertGroup* a, const ExpertGroup* b) {
    return a->count != b->count ? a->count > b->count : a->first_row < b->first_row;
  });
  int blocks = 0;
  for (ExpertGroup* group : groups) {
    group->first_block = blocks;
    blocks += packed_blocks(kernels, group->count);
  }
  const Run run = {kernels, tables, shape, input, groups, batch};
  const int group_count = static_cast<int>(groups.size());
  const int most_tokens = groups.empty() ? 0 : groups[0]->count;
  if (blocks > 0) {
    pool.for_each(blocks, 1, [&](int begin, int end, int) {
      for (int block = begin; block < end; ++block) run.pack(block);
    });
  }
  for_each_rows(pool, group_count, shape.inner, most_tokens, [&](int group, int row, int end, bool follows) {
    // Of many tokens, few rows at a time: their products are still in the cache when they are activated.
    const int step = run.is_packed(*groups[group]) ? 2 * kExpertUnitRows : end - row;
    for (int from = row; from < end; from += step) {
      const bool is_last = from + step >= end;
      run.gate_and_up(*groups[group], from, std::min(from + step, end),
                      is_last && follows ? groups[group + 1] : nullptr);
    }
  });
  for_each_rows(pool, group_count, shape.hidden, most_tokens, [&](int group, int row, int end, bool follows) {
    run.down(*groups[group], row, end, follows ? groups[group + 1] : nullptr);
  });
}

}  // namespace moestro
