#include "native/layers/expert_batch.h"

namespace moestro {

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

void run_expert_batch(const Kernels& kernels, ThreadPool& pool, const PlaneTables& tables, const ExpertShape& shape,
                      const Q8Activations& input, std::span<ExpertGroup* const> groups, const ExpertBatch& batch) {
  const size_t hidden = shape.hidden, inner = shape.inner;
  const int group_count = static_cast<int>(groups.size());
  const int units = shape.inner / kExpertUnitRows;
  pool.for_each(group_count * units, 1, [&](int begin, int end, int) {
    for (int item = begin; item < end; ++item) {
      const int row = item % units * kExpertUnitRows;
      const ExpertGroup& group = *groups[item / units];
      const size_t first = group.first_row;
      float* gate = batch.hidden_gate + first * inner;
      float* up = batch.hidden_up + first * inner;
      const PlaneMatrix wg = expert_matrix(group.planes, shape, group.level, ExpertMatrix::gate);
      const PlaneMatrix wu = expert_matrix(group.planes, shape, group.level, ExpertMatrix::up);
      kernels.gemm_q8_planes(wg, tables, group.level, input, batch.token_rows + first, group.count, row,
                             row + kExpertUnitRows, gate, inner);
      kernels.gemm_q8_planes(wu, tables, group.level, input, batch.token_rows + first, group.count, row,
                             row + kExpertUnitRows, up, inner);
      for (size_t i = 0; i < static_cast<size_t>(group.count); ++i) {
        const size_t at = i * inner + row, out = (first + i) * inner + row;
        kernels.swiglu_f32(gate + at, up + at, kExpertUnitRows, gate + at);
        kernels.quantize_q8(gate + at, kExpertUnitRows, batch.hidden_q8.q + out, batch.hidden_q8.scale + out / kGroup,
                            batch.hidden_q8.sum + out / kGroup);
      }
    }
  });

  const int down_units = shape.hidden / kExpertUnitRows;
  pool.for_each(group_count * down_units, 1, [&](int begin, int end, int) {
    for (int item = begin; item < end; ++item) {
      const int row = item % down_units * kExpertUnitRows;
      const ExpertGroup& group = *groups[item / down_units];
      const size_t first = group.first_row;
      const PlaneMatrix wd = expert_matrix(group.planes, shape, group.level, ExpertMatrix::down);
      Q8Activations x = batch.hidden_q8.view(shape.inner);
      x.q += first * inner;
      x.scale += first * inner / kGroup;
      x.sum += first * inner / kGroup;
      kernels.gemm_q8_planes(wd, tables, group.level, x, batch.local_rows, group.count, row, row + kExpertUnitRows,
                             batch.partial + first * hidden, hidden);
    }
  });
}

}  // namespace moestro
