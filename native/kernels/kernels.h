// The kernels a model needs, as one table of functions for one instruction set: what layers/ calls.
// Contracts and formulas stand in each kernel's own folder; formats in formats.h.
//
// All variants return the same bits for the same input (formats.h says how sums are ordered; float reductions use 16
// lanes, lane i taking elements i, i + 16, ..., each with fma in ascending order, then lanes are added in the fixed
// tree (0+8, 1+9, ...), (0+4, ...), (0+2, ...), (0+1)). exp, silu and softmax use one polynomial for all variants.
// No kernel allocates, locks or throws; all are safe from several threads on disjoint outputs.
#pragma once
#include "native/base/cpu.h"
#include "native/kernels/attention/attention.h"
#include "native/kernels/formats.h"

namespace moestro {

struct Kernels {
  Isa isa;

  // x f32 [n], n % 32 == 0 -> q int8 [n], scale f32 [n / 32], sum int32 [n / 32]. See Q8Activations.
  void (*quantize_q8)(const float* x, int n, int8_t* q, float* scale, int32_t* sum);

  // y[t * y_stride + r] = sum_c w[r][c] x[t][c] for rows [row_begin, row_end) (multiples of 16) and `tokens` tokens.
  void (*gemm_q8_dense)(const DenseMatrix& w, const Q8Activations& x, int tokens, int row_begin, int row_end, float* y,
                        size_t y_stride);

  // The same for an expert matrix at `level` (2, 3, 4 or 8). token_rows[i] names the row of x that output i reads;
  // output i goes to y + i * y_stride.
  void (*gemm_q8_planes)(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Activations& x,
                         const int32_t* token_rows, int tokens, int row_begin, int row_end, float* y, size_t y_stride);

  // The same with activations packed in blocks of 16 tokens: output i is token i of x. From packed_tokens tokens on
  // it is the faster one.
  int packed_tokens;
  void (*gemm_q8_planes_packed)(const PlaneMatrix& w, const PlaneTables& tables, int level, const Q8Block* x,
                                int tokens, int row_begin, int row_end, float* y, size_t y_stride);

  // y[t * y_stride + r] = sum_c w[r][c] x[t * cols + c], all float32, 16-lane order. Any rows; cols % 16 == 0.
  void (*gemm_f32)(const float* w, int rows, int cols, const float* x, int tokens, float* y, size_t y_stride);

  // y[i] = x[i] * weight[i] / sqrt(mean(x^2) + eps); n % 16 == 0. y may be x.
  void (*rmsnorm_f32)(const float* x, const float* weight, int n, float eps, float* y);

  // Rotates one head in place, NeoX pairing: (x[i], x[i + d/2]) by cos[i], sin[i]; d % 32 == 0, cos and sin f32 [d/2].
  void (*rope_f32)(float* x, int d, const float* cos, const float* sin);

  // y[i] = silu(gate[i]) * up[i]; n % 16 == 0. y may be gate.
  void (*swiglu_f32)(const float* gate, const float* up, int n, float* y);

  // y[i] += a * x[i] by fma; n % 16 == 0.
  void (*axpy_f32)(float a, const float* x, int n, float* y);

  // Stores one position's keys and values of all kv heads: k, v f32 [kv_heads][head_dim] into `block`, `slot`.
  // f16 rounds half to even; int8 uses scale = max|x| / 127 per head.
  void (*kv_store)(const KvLayer& kv, int block, int position_in_block, const float* k, const float* v);

  // Attention of up to attention_tokens(group) consecutive tokens of one sequence and the `group` query heads that
  // share a kv head, over the spans [first, last) of kAttentionSpan positions. state f32
  // [tokens][group][attention_state()]; scratch f32 of attention_scratch(). See attention/attention.h for the order of
  // sums.
  void (*attention)(const KvLayer& kv, const AttentionQueries& queries, int first, int last, float* scratch,
                    float* state);
  // Merges the state of the span that follows into `state`; then the output f32 [queries][head_dim] of a state.
  void (*attention_merge)(const float* later, int queries, int head_dim, float* state);
  void (*attention_finish)(const float* state, int queries, int head_dim, float* out);

  // Softmax over logits f32 [n] and the k best, highest first, ties to the lower index: ids u16 [k], weights f32 [k].
  // normalize: weights divided by their sum. n <= 1024, k <= 64.
  void (*topk_router)(const float* logits, int n, int k, bool normalize, uint16_t* ids, float* weights);

  // Index of the highest of x f32 [n], the lower among equals; 0 for none. Then the indices in [begin, end) of what is
  // at least `bound`, ascending, and how many. See select_logits.h.
  int (*find_largest)(const float* x, int n);
  int (*find_from)(const float* x, int begin, int end, float bound, int32_t* ids);

  // 1 / (1 + exp(-x)) of one number, with the same polynomial as swiglu.
  float (*sigmoid)(float x);

  // f16 row to f32, n % 16 == 0.
  void (*f16_to_f32)(const uint16_t* x, int n, float* y);
};

// The table for `isa`, or for the best set below it when a kernel has no such variant.
const Kernels& kernels_for(Isa isa);

}  // namespace moestro
