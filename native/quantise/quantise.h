// What model files need of native code: source weights to float32, and float32 to and from the two formats of
// kernels/formats.h. Plain functions on caller-owned memory; every length is checked against the shape before anything
// is read or written. Nothing is kept between calls and calls may run at the same time on different outputs.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "native/base/status.h"
#include "native/kernels/formats.h"

namespace moestro {

// Source weights of `count` elements to float32 out [count]. dtype: F32, F16, BF16 or a ggml block type: Q8_0, Q4_0,
// Q4_1, Q5_0, Q5_1 (blocks of 32), Q2_K, Q3_K, Q4_K, Q5_K, Q6_K (blocks of 256). `data` needs no alignment.
// Errors: UNSUPPORTED_DTYPE; INVALID_ARGUMENT when `count` is no multiple of the block or `bytes` is not its length.
Status dequantise(const std::string& dtype, const uint8_t* data, size_t bytes, size_t count, float* out);

// Elements and bytes of one block of a dtype. False when the dtype is unknown.
bool source_block(const std::string& dtype, size_t* elements, size_t* bytes);

struct SourceMatrix {
  std::string dtype;
  const uint8_t* data;  // row-major
  size_t bytes;
};

// Gate and up are [expert_size, hidden_size], down is [hidden_size, expert_size]. Both sizes are multiples of 32 in
// [32, 262144], so that every matrix is a grid of tiles.
struct ExpertShape {
  int hidden_size;
  int expert_size;
};

// Mean products of an expert's inputs, x_i x_j: gate_up float32 [hidden_size][width], down [expert_size][width]. Null
// for uniform. Width 1: squares only, which weigh errors. More: row i holds the products with the `width` columns of
// its block (error_feedback.h), and errors are fed back.
struct ExpertImportance {
  const float* gate_up = nullptr;
  const float* down = nullptr;
  int width = 1;
};

// Sum of importance * (w - its value at the level)^2 over sum of importance * w^2, for levels 2, 3, 4 and 8 in that
// order; with a width above 1, mean squared error of the outputs over their mean square, blocks taken by themselves.
// Without a residual plane the last repeats that of level 4.
using LevelErrors = std::array<double, 4>;

// Bytes of one expert's record with 4 or 8 bits a weight; equals planeGeometry() of src/model/plane-geometry.ts.
size_t expert_scale_bytes(const ExpertShape& shape);
size_t expert_bit_bytes(const ExpertShape& shape);
size_t expert_record_bytes(const ExpertShape& shape, int bits_stored);

// Quantises one expert into out [out_bytes], which must be expert_record_bytes(shape, residual ? 8 : 4).
// `only_level` 0: all levels have a say in the choice of codes; 2, 3 or 4: that one alone, to tell what the others
// cost. The result depends on the arguments alone, not on the instruction set. Errors: INVALID_ARGUMENT (shape,
// lengths, tables, importance), UNSUPPORTED_DTYPE, SOURCE_INVALID (a weight is NaN, infinite or beyond 1e15).
Status quantise_expert(const ExpertShape& shape, const SourceMatrix& gate, const SourceMatrix& up,
                       const SourceMatrix& down, const PlaneTables& tables, bool residual, int only_level,
                       const ExpertImportance& importance, uint8_t* out, size_t out_bytes, LevelErrors* errors);

// The inverse at a level (2, 3, 4 or 8): gate, up float32 [expert_size * hidden_size], down [hidden_size *
// expert_size], row-major. record_bytes may be a prefix of the record: as many planes as the level needs.
Status dequantise_expert(const ExpertShape& shape, const uint8_t* record, size_t record_bytes,
                         const PlaneTables& tables, int level, float* gate, float* up, float* down);

// Bytes of a dense matrix of 4, 6 or 8 bits: rows are padded to 16 with zero weights. cols % 32 == 0. Equals
// denseTensorBytes() of src/model/dense-layout.ts.
size_t dense_bytes(int rows, int cols, int bits);

// source [rows, cols] to out: codes of all tiles, their scales, then row scales where the format has them
// (DenseMatrix). The result depends on the arguments alone, not on the instruction set.
// Errors: INVALID_ARGUMENT, UNSUPPORTED_DTYPE, SOURCE_INVALID (a weight is NaN, infinite or beyond the format's
// scales).
Status quantise_dense(const SourceMatrix& source, int rows, int cols, int bits, uint8_t* out, size_t out_bytes);
Status dequantise_dense(const uint8_t* blocks, size_t bytes, int rows, int cols, int bits, float* out);

}  // namespace moestro
