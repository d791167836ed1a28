// The feed-forward part that every token runs: the shared expert of a MoE layer, or the FFN of a layer without
// experts. It is resident, so it runs while the experts' reads are on their way.
#include <algorithm>

#include "native/layers/model.h"

namespace moestro {

void Model::shared_ffn(int layer) {
  const LayerWeights& w = layers_[layer];
  if (w.ffn_gate.codes == nullptr) return;
  const int n = tokens_, hidden = dims_.hidden;
  const int inner = w.ffn_gate.rows;
  const int grain = std::max(1, n / (pool_->threads() * 4));
  const DenseJob gate_up[] = {{w.ffn_gate, s_.ffn_gate, static_cast<size_t>(inner)},
                              {w.ffn_up, s_.ffn_up, static_cast<size_t>(inner)}};
  run_dense(gate_up, s_.q8.view(hidden), n);
  // Quantised into a buffer of its own: the experts still need s_.q8, the layer's input.
  pool_->for_each(n, grain, [&](int begin, int end, int) {
    for (size_t t = begin; t < static_cast<size_t>(end); ++t)
      kernels_->swiglu_f32(s_.ffn_gate + t * inner, s_.ffn_up + t * inner, inner, s_.ffn_gate + t * inner);
  });
  quantize(s_.ffn_gate, n, inner, s_.ffn_q8);
  const DenseJob down[] = {{w.ffn_down, s_.shared, static_cast<size_t>(hidden)}};
  run_dense(down, s_.ffn_q8.view(inner), n);
  if (w.shared_router == nullptr) return;
  pool_->for_each(n, grain, [&](int begin, int end, int) {
    for (size_t t = begin; t < static_cast<size_t>(end); ++t) {
      float score = 0.0f;
      kernels_->gemm_f32(w.shared_router, 1, hidden, s_.xn + t * hidden, 1, &score, 1);
      const float open = kernels_->sigmoid(score);
      float* y = s_.shared + t * hidden;
      for (int i = 0; i < hidden; ++i) y[i] *= open;
    }
  });
}

}  // namespace moestro
