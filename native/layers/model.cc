// Which tensors a model has, where they lie in memory, and the scratch of its steps.
#include "native/layers/model.h"

#include <algorithm>
#include <cmath>

namespace moestro {
namespace {

size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

Status out_of_range(const char* what, long long found, const char* needed) {
  return Status("INVALID_ARGUMENT", std::string("Cannot set up the model: ") + what + " is " + std::to_string(found) +
                                        ", needed " + needed);
}

size_t q8_bytes(int rows, int cols) { return round_up(rows, kTileRows) * static_cast<size_t>(cols) / 16 * 17; }

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

// Attention scores of the query heads that share a kv head, for one thread.
size_t scores_stride(const Dims& d) {
  return static_cast<size_t>(d.heads / d.kv_heads) * round_up(static_cast<size_t>(d.context), 16);
}

}  // namespace

Status check_dims(const Dims& d) {
  const auto positive = [](int v, int max) { return v >= 1 && v <= max; };
  if (!positive(d.hidden, 65536) || d.hidden % 32) return out_of_range("hiddenSize", d.hidden, "a multiple of 32");
  if (!positive(d.layers, 1024)) return out_of_range("layerCount", d.layers, "1 to 1024");
  if (!positive(d.heads, 1024)) return out_of_range("headCount", d.heads, "1 to 1024");
  if (!positive(d.kv_heads, 1024) || d.heads % d.kv_heads)
    return out_of_range("kvHeadCount", d.kv_heads, "a divisor of headCount");
  if (!positive(d.head_dim, 1024) || d.head_dim % 32) return out_of_range("headDim", d.head_dim, "a multiple of 32");
  if (!positive(d.vocab, 1 << 22)) return out_of_range("vocabSize", d.vocab, "1 to 4194304");
  if (!positive(d.context, 1 << 22)) return out_of_range("contextLength", d.context, "1 to 4194304");
  if (!positive(d.experts, 1024)) return out_of_range("expertCount", d.experts, "1 to 1024");
  if (!positive(d.top_k, 64) || d.top_k > d.experts)
    return out_of_range("topK", d.top_k, "1 to 64 and at most expertCount");
  if (!positive(d.expert_size, 65536) || d.expert_size % 32)
    return out_of_range("expertSize", d.expert_size, "a multiple of 32");
  if (d.shared_size < 0 || d.shared_size > 1 << 20 || d.shared_size % 32)
    return out_of_range("sharedExpertSize", d.shared_size, "0 or a multiple of 32");
  if (d.dense_ffn < 0 || d.dense_ffn > 1 << 20 || d.dense_ffn % 32)
    return out_of_range("denseFfnSize", d.dense_ffn, "0 or a multiple of 32");
  if (static_cast<int>(d.is_moe.size()) != d.layers)
    return out_of_range("layerKinds' length", static_cast<long long>(d.is_moe.size()), "layerCount");
  const bool any_dense = std::find(d.is_moe.begin(), d.is_moe.end(), false) != d.is_moe.end();
  if (any_dense && d.dense_ffn == 0) return out_of_range("denseFfnSize", 0, "a size, for a layer is dense");
  if (!(d.eps >= 0.0f) || !(d.eps < 1.0f))
    return Status("INVALID_ARGUMENT", "Cannot set up the model: rmsNormEps is not in [0, 1)");
  if (!(d.rope_theta >= 1.0)) return Status("INVALID_ARGUMENT", "Cannot set up the model: ropeTheta is below 1");
  return Status();
}

void Model::list_tensors() {
  const Dims& d = dims_;
  const auto add = [this](const std::string& name, const char* kind, int rows, int cols) {
    const size_t bytes = std::string(kind) == "q8" ? q8_bytes(rows, cols) : static_cast<size_t>(rows) * cols * 4;
    tensors_[name] = {kind, rows, cols, dense_bytes_, bytes, false};
    tensor_order_.push_back(name);
    dense_bytes_ += round_up(bytes, 64);
  };
  add("embedding", "q8", d.vocab, d.hidden);
  if (!d.tied_embeddings) add("head", "q8", d.vocab, d.hidden);
  add("final_norm", "f32", 1, d.hidden);
  for (int l = 0; l < d.layers; ++l) {
    const std::string p = "layers." + std::to_string(l) + ".";
    add(p + "attn_norm", "f32", 1, d.hidden);
    add(p + "q", "q8", d.q_width(), d.hidden);
    add(p + "k", "q8", d.kv_width(), d.hidden);
    add(p + "v", "q8", d.kv_width(), d.hidden);
    add(p + "o", "q8", d.hidden, d.q_width());
    if (d.attention_bias) {
      add(p + "q_bias", "f32", 1, d.q_width());
      add(p + "k_bias", "f32", 1, d.kv_width());
      add(p + "v_bias", "f32", 1, d.kv_width());
    }
    if (d.qk_norm != QkNorm::none) {
      const bool full = d.qk_norm == QkNorm::full;
      add(p + "q_norm", "f32", 1, full ? d.q_width() : d.head_dim);
      add(p + "k_norm", "f32", 1, full ? d.kv_width() : d.head_dim);
    }
    add(p + "ffn_norm", "f32", 1, d.hidden);
    if (d.is_moe[l]) {
      add(p + "router", "f32", d.experts, d.hidden);
      if (d.shared_size > 0) {
        add(p + "shared_gate", "q8", d.shared_size, d.hidden);
        add(p + "shared_up", "q8", d.shared_size, d.hidden);
        add(p + "shared_down", "q8", d.hidden, d.shared_size);
        if (d.shared_gate) add(p + "shared_router", "f32", 1, d.hidden);
      }
    } else {
      add(p + "ffn_gate", "q8", d.dense_ffn, d.hidden);
      add(p + "ffn_up", "q8", d.dense_ffn, d.hidden);
      add(p + "ffn_down", "q8", d.hidden, d.dense_ffn);
    }
  }
}

namespace {

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
  s.scores = floats(static_cast<size_t>(threads) * scores_stride(d));
  s.rope_cos = floats(context * (d.head_dim / 2));
  s.rope_sin = floats(context * (d.head_dim / 2));
  s.logit_row = floats(round_up(d.vocab, kTileRows));
  s.q8 = q8(n, std::max(d.hidden, d.q_width()));
  s.ffn_q8 = q8(n, ffn);
  s.hidden_q8 = q8(n, d.expert_size);
  return s;
}

}  // namespace

size_t scratch_bytes(const Dims& dims, int threads, int max_batch_tokens) {
  Carver carver{nullptr};
  carve_scratch(&carver, dims, threads, max_batch_tokens);
  return carver.used;
}

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
  auto kv = AlignedBuffer::allocate((side + scale_side) * 2 * d.layers, ledger, "kv");
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

  const int threads = options_.threads;
  const size_t n = options_.max_batch_tokens;
  auto scratch = AlignedBuffer::allocate(scratch_bytes(d, threads, options_.max_batch_tokens), ledger, "scratch");
  if (!scratch.ok()) return scratch.status();
  scratch_ = std::move(scratch.value());
  Carver carver{scratch_.data()};
  s_ = carve_scratch(&carver, d, threads, n);
  scores_stride_ = scores_stride(d);
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

DenseQ8 Model::dense(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return {};
  const Tensor& t = found->second;
  const uint8_t* codes = dense_.data() + t.offset;
  const size_t code_bytes = round_up(t.rows, kTileRows) * static_cast<size_t>(t.cols);
  return {codes, reinterpret_cast<const uint16_t*>(codes + code_bytes), static_cast<int>(round_up(t.rows, kTileRows)),
          t.cols};
}

const float* Model::floats(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : reinterpret_cast<const float*>(dense_.data() + found->second.offset);
}

void Model::bind_weights() {
  embedding_ = dense("embedding");
  head_ = dims_.tied_embeddings ? embedding_ : dense("head");
  final_norm_ = floats("final_norm");
  for (int l = 0; l < dims_.layers; ++l) {
    const std::string p = "layers." + std::to_string(l) + ".";
    const std::string ffn = dims_.is_moe[l] ? "shared_" : "ffn_";
    LayerWeights w{};
    w.attn_norm = floats(p + "attn_norm");
    w.ffn_norm = floats(p + "ffn_norm");
    w.q_bias = floats(p + "q_bias");
    w.k_bias = floats(p + "k_bias");
    w.v_bias = floats(p + "v_bias");
    w.q_norm = floats(p + "q_norm");
    w.k_norm = floats(p + "k_norm");
    w.router = floats(p + "router");
    w.shared_router = floats(p + "shared_router");
    w.q = dense(p + "q");
    w.k = dense(p + "k");
    w.v = dense(p + "v");
    w.o = dense(p + "o");
    w.ffn_gate = dense(p + ffn + "gate");
    w.ffn_up = dense(p + ffn + "up");
    w.ffn_down = dense(p + ffn + "down");
    layers_.push_back(w);
  }
}

Result<std::unique_ptr<Model>> Model::create(const Dims& dims, const ModelOptions& options,
                                             std::shared_ptr<Ledger> ledger) {
  if (Status s = check_dims(dims); !s.ok()) return s;
  if (options.threads < 1 || options.threads > 256) return out_of_range("threads", options.threads, "1 to 256");
  if (options.max_batch_tokens < 1 || options.max_batch_tokens > 8192)
    return out_of_range("maxBatchTokens", options.max_batch_tokens, "1 to 8192");
  if (options.max_logit_rows < 1) return out_of_range("maxLogitRows", options.max_logit_rows, "at least 1");
  if (options.kv_block_tokens < 16 || options.kv_block_tokens > 4096 || options.kv_block_tokens % 16)
    return out_of_range("kv.blockTokens", options.kv_block_tokens, "a multiple of 16 up to 4096");
  if (options.kv_blocks < 1 || options.kv_blocks > 1 << 20)
    return out_of_range("kv.blocks", options.kv_blocks, "1 to 1048576");
  std::unique_ptr<Model> model(new Model(dims, options));
  model->kernels_ = &kernels_for(options.isa);
  model->list_tensors();
  if (Status s = model->allocate(std::move(ledger)); !s.ok()) return s;
  model->bind_weights();
  model->pool_ = std::make_unique<ThreadPool>(options.threads);
  return model;
}

Result<Model::DenseTarget> Model::dense_target(const std::string& name, const std::string& kind, int rows, int cols) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    return Status("MODEL_INVALID",
                  "Cannot load dense tensor \"" + name + "\": this architecture has none of that name");
  const Tensor& t = found->second;
  if (t.kind != kind || t.rows != rows || t.cols != cols)
    return Status("MODEL_INVALID", "Cannot load dense tensor \"" + name + "\": found " + kind + " [" +
                                       std::to_string(rows) + ", " + std::to_string(cols) + "], needed " + t.kind +
                                       " [" + std::to_string(t.rows) + ", " + std::to_string(t.cols) + "]");
  return DenseTarget{dense_.data() + t.offset, t.bytes};
}

void Model::loaded(const std::string& name) { tensors_.at(name).loaded = true; }

Status Model::ready() const {
  for (const std::string& name : tensor_order_) {
    if (!tensors_.at(name).loaded)
      return Status("MODEL_INVALID", "Cannot start the model: dense tensor \"" + name + "\" is missing");
  }
  return Status();
}

Status Model::set_batch(std::span<const int32_t> tokens, std::span<const int32_t> positions,
                        std::span<const int32_t> sequences, std::span<const int32_t> block_tables,
                        int blocks_per_sequence) {
  const auto bad = [](const std::string& what) { return Status("INVALID_ARGUMENT", "Cannot set the batch: " + what); };
  const size_t n = tokens.size();
  if (n < 1 || n > static_cast<size_t>(options_.max_batch_tokens))
    return bad(std::to_string(n) + " tokens, needed 1 to " + std::to_string(options_.max_batch_tokens));
  if (positions.size() != n || sequences.size() != n) return bad("positions and sequences must have one entry a token");
  if (blocks_per_sequence < 1 || block_tables.size() % blocks_per_sequence != 0 || block_tables.empty())
    return bad("block tables must be rows of blocksPerSequence entries");
  const int64_t sequence_count = block_tables.size() / blocks_per_sequence;
  for (size_t t = 0; t < n; ++t) {
    if (tokens[t] < 0 || tokens[t] >= dims_.vocab)
      return bad("token id " + std::to_string(tokens[t]) + " is not below " + std::to_string(dims_.vocab));
    if (sequences[t] < 0 || sequences[t] >= sequence_count)
      return bad("sequence " + std::to_string(sequences[t]) + " has no block table");
    const int64_t last_block = positions[t] / options_.kv_block_tokens;
    if (positions[t] < 0 || positions[t] >= dims_.context || last_block >= blocks_per_sequence)
      return bad("position " + std::to_string(positions[t]) + " is outside the context");
    const int32_t* row = block_tables.data() + static_cast<size_t>(sequences[t]) * blocks_per_sequence;
    for (int64_t b = 0; b <= last_block; ++b) {
      if (row[b] < 0 || row[b] >= options_.kv_blocks)
        return bad("KV block " + std::to_string(row[b]) + " does not exist");
    }
  }
  tokens_ = static_cast<int>(n);
  ids_.assign(tokens.begin(), tokens.end());
  positions_.assign(positions.begin(), positions.end());
  sequences_.assign(sequences.begin(), sequences.end());
  block_tables_.assign(block_tables.begin(), block_tables.end());
  blocks_per_sequence_ = blocks_per_sequence;
  return Status();
}

void Model::run_dense(std::span<const DenseJob> jobs, const Q8Activations& x, int tokens) {
  int blocks = 0;
  for (const DenseJob& job : jobs) blocks += job.w.rows / kTileRows;
  // Enough pieces that both ends finish together, not so many that the counter costs.
  const int grain = std::max(1, blocks / (pool_->threads() * 8));
  pool_->for_each(blocks, grain, [&](int begin, int end, int) {
    int first = 0;
    for (const DenseJob& job : jobs) {
      const int count = job.w.rows / kTileRows;
      const int from = std::max(begin - first, 0), to = std::min(end - first, count);
      if (from < to) kernels_->gemm_q8_dense(job.w, x, tokens, from * kTileRows, to * kTileRows, job.y, job.y_stride);
      first += count;
    }
  });
}

void Model::quantize(const float* x, int tokens, int cols, const Q8Buffer& out) {
  const size_t c = cols;
  pool_->for_each(tokens, std::max(1, tokens / (pool_->threads() * 4)), [&](int begin, int end, int) {
    for (size_t t = begin; t < static_cast<size_t>(end); ++t)
      kernels_->quantize_q8(x + t * c, cols, out.q + t * c, out.scale + t * (c / 32), out.sum + t * (c / 32));
  });
}

}  // namespace moestro
