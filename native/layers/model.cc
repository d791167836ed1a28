// A model's dimensions and options, the batch of a step, and the two things that most steps do: run dense matrices and
// quantise activations.
#include "native/layers/model.h"

#include <algorithm>

namespace moestro {
namespace {

Status out_of_range(const char* what, long long found, const char* needed) {
  return Status("INVALID_ARGUMENT", std::string("Cannot set up the model: ") + what + " is " + std::to_string(found) +
                                        ", needed " + needed);
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
