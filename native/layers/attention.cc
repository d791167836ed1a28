// The attention half of a layer: norm, q/k/v, q and k norms, rotary positions, KV store, attention over the blocks of
// each token's sequence, output projection, residual. Ends with the norm before the FFN, quantised for it.
#include <algorithm>

#include "native/layers/model.h"

namespace moestro {
namespace {

void add_bias(const float* bias, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] += bias[i];
}

}  // namespace

void Model::attention(int layer) {
  const LayerWeights& w = layers_[layer];
  const KvLayer& kv = kv_layers_[layer];
  const int n = tokens_, hidden = dims_.hidden, head_dim = dims_.head_dim, half = head_dim / 2;
  const size_t q_width = dims_.q_width(), kv_width = dims_.kv_width();
  const int token_grain = std::max(1, n / (pool_->threads() * 4));

  pool_->for_each(n, token_grain, [&](int begin, int end, int) {
    for (int t = begin; t < end; ++t) {
      const size_t at = static_cast<size_t>(t) * hidden;
      kernels_->rmsnorm_f32(s_.x + at, w.attn_norm, hidden, dims_.eps, s_.xn + at);
    }
  });
  quantize(s_.xn, n, hidden, s_.q8);
  const DenseJob qkv[] = {{w.q, s_.q, q_width}, {w.k, s_.k, kv_width}, {w.v, s_.v, kv_width}};
  run_dense(qkv, s_.q8.view(hidden), n);

  // Per token: biases, norms, rotary, and the store into the KV blocks. All stores are done before any token attends.
  pool_->for_each(n, token_grain, [&](int begin, int end, int) {
    for (size_t t = begin; t < static_cast<size_t>(end); ++t) {
      float* q = s_.q + t * q_width;
      float* k = s_.k + t * kv_width;
      float* v = s_.v + t * kv_width;
      if (w.q_bias != nullptr) {
        add_bias(w.q_bias, q, q_width);
        add_bias(w.k_bias, k, kv_width);
        add_bias(w.v_bias, v, kv_width);
      }
      if (dims_.qk_norm == QkNorm::full) {
        kernels_->rmsnorm_f32(q, w.q_norm, static_cast<int>(q_width), dims_.eps, q);
        kernels_->rmsnorm_f32(k, w.k_norm, static_cast<int>(kv_width), dims_.eps, k);
      } else if (dims_.qk_norm == QkNorm::head) {
        for (int h = 0; h < dims_.heads; ++h)
          kernels_->rmsnorm_f32(q + h * head_dim, w.q_norm, head_dim, dims_.eps, q + h * head_dim);
        for (int h = 0; h < dims_.kv_heads; ++h)
          kernels_->rmsnorm_f32(k + h * head_dim, w.k_norm, head_dim, dims_.eps, k + h * head_dim);
      }
      const float* cos = s_.rope_cos + static_cast<size_t>(positions_[t]) * half;
      const float* sin = s_.rope_sin + static_cast<size_t>(positions_[t]) * half;
      for (int h = 0; h < dims_.heads; ++h) kernels_->rope_f32(q + h * head_dim, head_dim, cos, sin);
      for (int h = 0; h < dims_.kv_heads; ++h) kernels_->rope_f32(k + h * head_dim, head_dim, cos, sin);
      const int32_t* blocks = block_tables_.data() + static_cast<size_t>(sequences_[t]) * blocks_per_sequence_;
      kernels_->kv_store(kv, blocks[positions_[t] / kv.block_tokens], positions_[t] % kv.block_tokens, k, v);
    }
  });

  attend(kv);

  quantize(s_.attn, n, static_cast<int>(q_width), s_.q8);
  const DenseJob out[] = {{w.o, s_.xn, static_cast<size_t>(hidden)}};  // xn is free until the norm below
  run_dense(out, s_.q8.view(static_cast<int>(q_width)), n);
  pool_->for_each(n, token_grain, [&](int begin, int end, int) {
    for (int t = begin; t < end; ++t) {
      const size_t at = static_cast<size_t>(t) * hidden;
      kernels_->axpy_f32(1.0f, s_.xn + at, hidden, s_.x + at);
      kernels_->rmsnorm_f32(s_.x + at, w.ffn_norm, hidden, dims_.eps, s_.xn + at);
    }
  });
  quantize(s_.xn, n, hidden, s_.q8);
}

}  // namespace moestro
