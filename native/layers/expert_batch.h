// Several experts of one layer over the tokens that chose them: gate and up with the activation, then down, each as one
// run of the pool. Allocates nothing; what it needs for a moment is handed in.
#pragma once
#include <span>

#include "native/base/thread_pool.h"
#include "native/kernels/kernels.h"
#include "native/layers/model.h"

namespace moestro {

struct ExpertShape {
  int hidden, inner;
};

// Scratch and output of one batch of `rows` (token, rank) pairs, which are numbered group after group.
struct ExpertBatch {
  const int32_t* token_rows;       // [rows]: the row of the input that a pair reads
  const int32_t* local_rows;       // 0, 1, 2, ... up to the largest group
  float *hidden_gate, *hidden_up;  // [rows][inner]; on return hidden_gate holds silu(gate) * up
  Q8Buffer hidden_q8;              // [rows][inner]
  float* partial;                  // out [rows][hidden]
};

// Runs `groups`, of each: planes, level, count and first_row, the number of its first pair. `input` has `hidden`
// columns.
void run_expert_batch(const Kernels& kernels, ThreadPool& pool, const PlaneTables& tables, const ExpertShape& shape,
                      const Q8Activations& input, std::span<ExpertGroup* const> groups, const ExpertBatch& batch);

enum class ExpertMatrix { gate, up, down };

// One matrix of an expert, from the slots that hold its planes; see formats.h.
PlaneMatrix expert_matrix(const ExpertPlanes& planes, const ExpertShape& shape, int level, ExpertMatrix which);

// Rows that one work unit computes: whole groups of the hidden activations, so that a unit of gate and up can also
// quantise what it made.
constexpr int kExpertUnitRows = 32;

}  // namespace moestro
