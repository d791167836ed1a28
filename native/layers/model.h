// One model's dense weights, KV cache and scratch, and the steps of its forward pass: one step per file.
//
// The order of a step: set_batch, embed, then for each layer attention, route, (experts | ffn), finish_layer; then
// logits. All functions run on the engine's thread and use the pool inside; none allocates after create().
// Weights and arithmetic are laid out so that no result depends on the number of threads, the batch a token
// travels in, or the order in which experts ran: see native/kernels/formats.h.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "native/base/status.h"
#include "native/base/thread_pool.h"
#include "native/kernels/kernels.h"
#include "native/memory/memory.h"

namespace moestro {

enum class QkNorm { none, head, full };

// src/model/manifest.ts `Architecture`, checked.
struct Dims {
  int hidden, layers, heads, kv_heads, head_dim, vocab, context;
  double rope_theta;
  float eps;
  QkNorm qk_norm;
  bool attention_bias, tied_embeddings;
  int experts, top_k, expert_size;
  bool norm_top_k;
  int shared_size;
  bool shared_gate;
  int dense_ffn;
  std::vector<bool> is_moe;  // per layer
  int sliding_window;        // 0 for none

  int q_width() const { return heads * head_dim; }
  int kv_width() const { return kv_heads * head_dim; }
  int group() const { return heads / kv_heads; }
};

// Errors: INVALID_ARGUMENT naming the number that is out of its range.
Status check_dims(const Dims& dims);

struct ModelOptions {
  int threads;
  Isa isa;
  int max_batch_tokens, max_logit_rows;
  KvType kv_type;
  int kv_block_tokens, kv_blocks;
  PlaneTables tables;
  std::unordered_map<std::string, std::string> dense_kinds;  // "q4" or "q6" of the matrices that are not "q8"
};

struct LayerWeights {
  const float *attn_norm, *ffn_norm, *q_bias, *k_bias, *v_bias, *q_norm, *k_norm, *router, *shared_router;
  DenseMatrix q, k, v, o;
  DenseMatrix ffn_gate, ffn_up, ffn_down;  // of the shared expert, or of a layer without experts
};

// An expert's planes in slots: pointers only, valid while the caller pins the slots.
struct ExpertPlanes {
  const uint8_t* scales;
  const uint8_t* bits[8];
};

// One expert at one level and the (token, rank) pairs it serves in this step.
struct ExpertGroup {
  int expert, level;
  int64_t ticket;  // -1: resident
  const int32_t* assignments;
  int count;
  ExpertPlanes planes;
  int first_row = 0;    // of its hidden activations, where it runs with others; set by run_experts
  int first_block = 0;  // likewise of its packed activations, if it has so many tokens
  int error = 0;        // out: errno of the read it waited for
  bool waited = false;  // out
};

// What expert_ffn needs to know of reads: implemented over the read queue by the addon.
class ReadGate {
 public:
  virtual ~ReadGate() = default;
  // True when the read is finished; *error is 0 or its errno.
  virtual bool finished(int64_t ticket, int* error) = 0;
  // Looks for finished reads; with `block`, waits until one more has finished. False when none is left to wait for.
  virtual bool advance(bool block) = 0;
};

// Int8 activations in scratch; see Q8Activations.
struct Q8Buffer {
  int8_t* q;
  float* scale;
  int32_t* sum;
  Q8Activations view(int cols) const { return {q, scale, sum, cols}; }
};

// Everything a step writes besides the KV cache, inside one allocation; n = max_batch_tokens.
struct Scratch {
  float *x, *xn;                   // [n][hidden] residual stream; normed input of the next matrices
  float *q, *k, *v, *attn;         // [n][q_width], [n][kv_width] twice, [n][q_width]
  float* router_logits;            // [n][experts]
  float* shared;                   // [n][hidden] output of the shared expert or the dense FFN
  float *ffn_gate, *ffn_up;        // [n][max(shared_size, dense_ffn)]
  float* partial;                  // [n * top_k][hidden] expert outputs, in the order experts ran
  float *hidden_gate, *hidden_up;  // [n][expert_size], of the experts that run together
  float* attention;                // [threads][attention_floats()]: what a call of attention needs, and its state
  float* spans;                    // [threads * kStatesPerThread][span_floats()], of tokens split over threads
  float *rope_cos, *rope_sin;      // [context][head_dim / 2]
  float* logit_row;                // [vocab rounded up to 16]
  Q8Buffer q8;                     // [n][max(hidden, q_width)]
  Q8Buffer ffn_q8;                 // [n][max(shared_size, dense_ffn)]
  Q8Buffer hidden_q8;              // [n][expert_size]
  Q8Block* input_blocks;           // [expert_blocks(n)][hidden / 32], of the experts that run together
  Q8Block* hidden_blocks;          // [expert_blocks(n)][expert_size / 32]
};

// Consecutive tokens of the batch that stand at consecutive positions of one sequence.
struct TokenRun {
  int first, count;
};

// The next multiple of `to`.
constexpr size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

// Blocks of packed tokens for the experts that run together in a step of n tokens: a group fills its last one in part.
constexpr size_t expert_blocks(size_t n) { return round_up(n, 8) / 8; }

// Floats of one thread in Scratch::attention; floats of one state in Scratch::spans, that of a token and a kv head.
constexpr int kSpansPerThread = 4, kItemsPerThread = 2, kStatesPerThread = kSpansPerThread + kItemsPerThread;
inline size_t attention_floats(const Dims& d) {
  const int queries = attention_tokens(d.group()) * d.group();
  return attention_scratch(queries, d.head_dim) + queries * attention_state(d.head_dim);
}
inline size_t span_floats(const Dims& d) { return d.group() * attention_state(d.head_dim); }

// Products of one expert's inputs, summed over tokens, each weighted by its squared routing weight: gate_up
// [hidden][width], down [expert_size][width], row i with the columns [i / width * width, + width). Width 1: squares.
struct Importance {
  int64_t tokens = 0;
  std::vector<float> gate_up, down;
};

class Model {
 public:
  // Allocates everything. Errors: INVALID_ARGUMENT, OUT_OF_MEMORY.
  static Result<std::unique_ptr<Model>> create(const Dims& dims, const ModelOptions& options,
                                               std::shared_ptr<Ledger> ledger);

  // Where the bytes of a dense tensor go; INVALID_ARGUMENT/MODEL_INVALID when its name, kind or shape is not of this
  // model. The caller fills `bytes` bytes and then says loaded().
  struct DenseTarget {
    uint8_t* data;
    size_t bytes;
  };
  Result<DenseTarget> dense_target(const std::string& name, const std::string& kind, int rows, int cols);
  void loaded(const std::string& name);
  Status ready() const;

  // block_tables [sequence_count][blocks_per_sequence]; all checked.
  Status set_batch(std::span<const int32_t> tokens, std::span<const int32_t> positions,
                   std::span<const int32_t> sequences, std::span<const int32_t> block_tables, int blocks_per_sequence);
  void embed();
  void attention(int layer);
  void route(int layer, uint16_t* ids, float* weights);
  // scores [tokens][experts]: what the router of a layer further on would say to the residual stream as it is. Not to
  // be called between run_experts and finish_layer.
  void predict(int layer, float* scores);
  void shared_ffn(int layer);
  // Runs all groups; returns nanoseconds in which compute waited for a read.
  uint64_t run_experts(int layer, std::span<ExpertGroup> groups, ReadGate& gate);
  void finish_layer(int layer, const float* weights);
  // out [rows][hidden]: the residual stream after the final norm, which is what the head reads. Any number of rows.
  void hidden_states(std::span<const int32_t> rows, float* out);
  // out [rows][vocab]; at most max_logit_rows and max_batch_tokens rows.
  void logits(std::span<const int32_t> rows, float* out);
  // The highest logit's index, the lower one among equals; 0 when none is above minus infinity. NaN never wins.
  int largest_logit(std::span<const float> logits) const;
  // Indices of the logits that are at least `least` to ids [logits.size()]: all in ascending order where they are no
  // more than `most` (0: any number), else the `most` best, best first, lower ones first among equals. Returns how
  // many.
  int best_logits(std::span<const float> logits, double least, int most, int32_t* ids) const;

  // Errors: OUT_OF_MEMORY; then it is off.
  // Collects products of `width` columns from now on, anew; 0 collects nothing.
  Status collect_importance(int width);
  const Importance* importance(int layer, int expert) const;

  const Dims& dims() const { return dims_; }
  int batch_tokens() const { return tokens_; }
  int max_logit_rows() const { return options_.max_logit_rows; }
  int threads() const { return pool_->threads(); }
  // ThreadPool::set_between_pieces, of the pool that all functions here run on.
  void set_between_pieces(void (*call)(void* context), void* context) { pool_->set_between_pieces(call, context); }
  Isa isa() const { return kernels_->isa; }
  int kv_blocks() const { return options_.kv_blocks; }
  // Gives the memory of KV blocks [first, end) back in all layers; their keys and values are lost.
  void discard_kv(int first, int end);
  // Where a block's keys and values lie: of each layer in order keys, values, and their scales for int8. Together they
  // are all that attention reads of it, the same bytes on every instruction set.
  std::vector<std::span<uint8_t>> kv_pieces(int block);
  void copy_kv(int from, int to);

 private:
  struct Tensor {
    std::string kind;
    int rows, cols;
    size_t offset, bytes;
    bool loaded;
  };

  Model(const Dims& dims, const ModelOptions& options) : dims_(dims), options_(options) {}
  void list_tensors();
  Status allocate(std::shared_ptr<Ledger> ledger);
  void bind_weights();
  DenseMatrix dense(const std::string& name) const;
  const float* floats(const std::string& name) const;

  // Several matrices over the same activations in one parallel run.
  struct DenseJob {
    DenseMatrix w;
    float* y;
    size_t y_stride;
  };
  void run_dense(std::span<const DenseJob> jobs, const Q8Activations& x, int tokens);
  void quantize(const float* x, int tokens, int cols, const Q8Buffer& out);
  // s_.q and the KV cache to s_.attn.
  void attend(const KvLayer& kv);
  void attend_whole(const KvLayer& kv, int block_tokens);
  void attend_split(const KvLayer& kv);
  AttentionQueries queries_at(int token, int tokens, int kv_head) const;
  void score_experts(int layer, const float* x, float* out);
  void run_ready_experts(int layer, std::span<ExpertGroup*> groups);
  void add_importance(int layer, std::span<ExpertGroup*> groups);

  Dims dims_;
  ModelOptions options_;
  const Kernels* kernels_ = nullptr;
  std::unique_ptr<ThreadPool> pool_;

  std::unordered_map<std::string, Tensor> tensors_;
  std::vector<std::string> tensor_order_;
  size_t dense_bytes_ = 0;
  AlignedBuffer dense_, kv_, scratch_;
  std::vector<LayerWeights> layers_;
  std::vector<KvLayer> kv_layers_;
  size_t kv_side_ = 0, kv_scale_side_ = 0;  // bytes of one layer's keys, and of their scales, over all blocks
  DenseMatrix embedding_{}, head_{};
  const float* final_norm_ = nullptr;

  // The batch.
  int tokens_ = 0;
  std::vector<int32_t> ids_, positions_, sequences_, block_tables_;
  int blocks_per_sequence_ = 0;

  Scratch s_{};
  std::vector<TokenRun> token_runs_;  // of the batch, while attention runs
  std::vector<int32_t> partial_row_;  // [n * top_k]: where each assignment's output stands; -1 when it has none
  int partial_used_ = 0;
  std::vector<int32_t> token_rows_, local_rows_;
  std::vector<ExpertGroup*> ready_;

  int importance_width_ = 0;          // 0: not collecting
  std::vector<float> route_weights_;  // [n * top_k] of the layer at hand, while collecting
  std::vector<Importance> importance_;
};

}  // namespace moestro
