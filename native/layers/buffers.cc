// The memory of a model: dense weights, KV cache and the scratch of a step, an allocation each, and what lies where in
// them. src/engine/memory-plan.ts knows the same sums, and decides by them before anything is allocated.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "native/layers/model.h"

namespace moestro {
namespace {

// Hands out 64-byte aligned pieces of one buffer; run once without a buffer to learn the size.
struct Carver {
  uint8_t* base;
  size_t used = 0;
  template <typename T>
  T* take(size_t count) {
    T* at = base == nullptr ? nullptr : reinterpret_cast<T*>(base + used);
    used += round_up(count * sizeof(T), 64);
    return at;
  }
};

// Assigns all scratch from one buffer; without a buffer it only learns the size.
Scratch carve_scratch(Carver* carver, const Dims& d, int threads, size_t n) {
  const size_t ffn = std::max({d.shared_size, d.dense_ffn, 32});
  const auto floats = [carver](size_t count) { return carver->take<float>(count); };
  const auto q8 = [carver](size_t rows, size_t cols) {
    return Q8Buffer{carver->take<int8_t>(rows * cols), carver->take<float>(rows * cols / 32),
                    carver->take<int32_t>(rows * cols / 32)};
  };
  const size_t context = d.context;
  Scratch s{};
  s.x = floats(n * d.hidden);
  s.xn = floats(n * d.hidden);
  s.q = floats(n * d.q_width());
  s.k = floats(n * d.kv_width());
  s.v = floats(n * d.kv_width());
  s.attn = floats(n * d.q_width());
  s.router_logits = floats(n * d.experts);
  s.shared = floats(n * d.hidden);
  s.ffn_gate = floats(n * ffn);
  s.ffn_up = floats(n * ffn);
  s.partial = floats(n * d.top_k * d.hidden);
  s.hidden_gate = floats(n * d.expert_size);
  s.hidden_up = floats(n * d.expert_size);
  s.attention = floats(threads * attention_floats(d));
  s.spans = floats(threads * kStatesPerThread * span_floats(d));
  s.rope_cos = floats(context * (d.head_dim / 2));
  s.rope_sin = floats(context * (d.head_dim / 2));
  s.logit_row = floats(round_up(d.vocab, kTileRows));
  s.q8 = q8(n, std::max(d.hidden, d.q_width()));
  s.ffn_q8 = q8(n, ffn);
  s.hidden_q8 = q8(n, d.expert_size);
  s.input_blocks = carver->take<Q8Block>(expert_blocks(n) * (d.hidden / kGroup));
  s.hidden_blocks = carver->take<Q8Block>(expert_blocks(n) * (d.expert_size / kGroup));
  return s;
}

size_t scratch_bytes(const Dims& dims, int threads, size_t max_batch_tokens) {
  Carver carver{nullptr};
  carve_scratch(&carver, dims, threads, max_batch_tokens);
  return carver.used;
}

}  // namespace

Status Model::allocate(std::shared_ptr<Ledger> ledger) {
  const Dims& d = dims_;
  auto dense = AlignedBuffer::allocate(dense_bytes_, ledger, "dense");
  if (!dense.ok()) return dense.status();
  dense_ = std::move(dense.value());

  const size_t block_values = static_cast<size_t>(d.kv_heads) * options_.kv_block_tokens * d.head_dim;
  const size_t block_scales = static_cast<size_t>(d.kv_heads) * options_.kv_block_tokens;
  const size_t value_bytes = options_.kv_type == KvType::f16 ? 2 : 1;
  const size_t side = round_up(block_values * value_bytes * options_.kv_blocks, 64);
  const size_t scale_side = options_.kv_type == KvType::int8 ? round_up(block_scales * 4 * options_.kv_blocks, 64) : 0;
  // One side stays far below 2^64, all layers at the largest of every dimension do not.
  if (side + scale_side > SIZE_MAX / 4 / d.layers)
    return Status("OUT_OF_MEMORY", "Cannot allocate a KV cache of " + std::to_string(options_.kv_blocks) +
                                       " blocks: more bytes than an address can name");
  // The first blocks of every layer are in use long before the last ones: what is not written yet serves as expert
  // slots.
  auto kv = AlignedBuffer::allocate((side + scale_side) * 2 * d.layers, ledger, "kv", false, true);
  if (!kv.ok()) return kv.status();
  kv_ = std::move(kv.value());
  for (int l = 0; l < d.layers; ++l) {
    uint8_t* at = kv_.data() + static_cast<size_t>(l) * 2 * (side + scale_side);
    KvLayer layer{};
    layer.type = options_.kv_type;
    layer.k = at;
    layer.v = at + side;
    if (scale_side > 0) {
      layer.k_scale = reinterpret_cast<float*>(at + 2 * side);
      layer.v_scale = reinterpret_cast<float*>(at + 2 * side + scale_side);
    }
    layer.kv_heads = d.kv_heads;
    layer.head_dim = d.head_dim;
    layer.block_tokens = options_.kv_block_tokens;
    kv_layers_.push_back(layer);
  }

  kv_side_ = side;
  kv_scale_side_ = scale_side;
  const int threads = options_.threads;
  const size_t n = options_.max_batch_tokens;
  auto scratch = AlignedBuffer::allocate(scratch_bytes(d, threads, n), ledger, "scratch");
  if (!scratch.ok()) return scratch.status();
  scratch_ = std::move(scratch.value());
  Carver carver{scratch_.data()};
  s_ = carve_scratch(&carver, d, threads, n);
  token_runs_.reserve(n);
  partial_row_.assign(n * d.top_k, -1);
  token_rows_.resize(n);
  local_rows_.resize(n);
  for (size_t i = 0; i < n; ++i) local_rows_[i] = static_cast<int32_t>(i);
  ready_.reserve(1024);

  // Rotary tables in double, as the angle of a late position needs it.
  const int half = d.head_dim / 2;
  for (int i = 0; i < half; ++i) {
    const double frequency = std::pow(d.rope_theta, -2.0 * i / d.head_dim);
    for (int p = 0; p < d.context; ++p) {
      s_.rope_cos[static_cast<size_t>(p) * half + i] = static_cast<float>(std::cos(p * frequency));
      s_.rope_sin[static_cast<size_t>(p) * half + i] = static_cast<float>(std::sin(p * frequency));
    }
  }
  return Status();
}

void Model::discard_kv(int first, int end) {
  const size_t per_block = kv_side_ / options_.kv_blocks;
  const size_t scales_per_block = kv_scale_side_ / options_.kv_blocks;
  size_t at = 0;
  for (size_t l = 0; l < kv_layers_.size(); ++l) {
    for (const auto& [side, block] :
         {std::pair{kv_side_, per_block}, std::pair{kv_side_, per_block}, std::pair{kv_scale_side_, scales_per_block},
          std::pair{kv_scale_side_, scales_per_block}}) {
      kv_.discard(at + first * block, (end - first) * block);
      at += side;
    }
  }
}

std::vector<std::span<uint8_t>> Model::kv_pieces(int block) {
  const size_t per_block =
      static_cast<size_t>(dims_.kv_width()) * options_.kv_block_tokens * (options_.kv_type == KvType::f16 ? 2 : 1);
  const size_t scales = static_cast<size_t>(dims_.kv_heads) * options_.kv_block_tokens;
  const size_t b = static_cast<size_t>(block);
  std::vector<std::span<uint8_t>> pieces;
  pieces.reserve(kv_layers_.size() * (kv_scale_side_ > 0 ? 4 : 2));
  for (const KvLayer& layer : kv_layers_) {
    pieces.emplace_back(layer.k + b * per_block, per_block);
    pieces.emplace_back(layer.v + b * per_block, per_block);
    if (kv_scale_side_ == 0) continue;
    pieces.emplace_back(reinterpret_cast<uint8_t*>(layer.k_scale + b * scales), scales * sizeof(float));
    pieces.emplace_back(reinterpret_cast<uint8_t*>(layer.v_scale + b * scales), scales * sizeof(float));
  }
  return pieces;
}

void Model::copy_kv(int from, int to) {
  const auto source = kv_pieces(from), target = kv_pieces(to);
  for (size_t i = 0; i < source.size(); ++i) std::memcpy(target[i].data(), source[i].data(), source[i].size());
}

}  // namespace moestro
