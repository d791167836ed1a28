// Scores the experts of a layer and takes the top-k of every token. In f32: a router decides, it must not round.
#include <algorithm>

#include "native/layers/model.h"

namespace moestro {

// out [tokens][experts]: the router's logits over x [tokens][hidden].
void Model::score_experts(int layer, const float* x, float* out) {
  const float* router = layers_[layer].router;
  const int experts = dims_.experts;
  // Few tokens: the experts are shared out among the threads, else the tokens.
  const int expert_pieces = tokens_ < pool_->threads() * 2 ? std::max(1, experts / 16) : 1;
  const int per_piece = (experts + expert_pieces - 1) / expert_pieces;
  pool_->for_each(tokens_ * expert_pieces, 1, [&](int begin, int end, int) {
    for (int item = begin; item < end; ++item) {
      const size_t t = item / expert_pieces;
      const int first = item % expert_pieces * per_piece, last = std::min(experts, first + per_piece);
      if (first >= last) continue;
      kernels_->gemm_f32(router + static_cast<size_t>(first) * dims_.hidden, last - first, dims_.hidden,
                         x + t * dims_.hidden, 1, out + t * experts + first, experts);
    }
  });
}

void Model::route(int layer, uint16_t* ids, float* weights) {
  const int k = dims_.top_k, experts = dims_.experts;
  score_experts(layer, s_.xn, s_.router_logits);
  for (size_t t = 0; t < static_cast<size_t>(tokens_); ++t)
    kernels_->topk_router(s_.router_logits + t * experts, experts, k, dims_.norm_top_k, ids + t * k, weights + t * k);
  if (importance_width_ > 0) std::copy_n(weights, static_cast<size_t>(tokens_) * k, route_weights_.begin());
  std::fill_n(partial_row_.begin(), static_cast<size_t>(tokens_) * k, -1);
  partial_used_ = 0;
}

// The residual stream changes little from layer to layer, so a router that is asked too early names most of the experts
// it will choose. Source: Mixtral offloading, arXiv:2312.17238.
void Model::predict(int layer, float* scores) {
  float* const normed = s_.partial;  // free between finish_layer and run_experts
  for (size_t t = 0; t < static_cast<size_t>(tokens_); ++t) {
    kernels_->rmsnorm_f32(s_.x + t * dims_.hidden, layers_[layer].ffn_norm, dims_.hidden, dims_.eps,
                          normed + t * dims_.hidden);
  }
  score_experts(layer, normed, scores);
}

}  // namespace moestro
