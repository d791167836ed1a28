// Several experts of one layer over the tokens that chose them: gate and up with the activation, then down, each as one
// run of the pool. Allocates nothing; what it needs for a moment is handed in.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>

#include "native/base/thread_pool.h"
#include "native/base/unit_split.h"
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
  Q8Block* input_blocks;           // [blocks of packed groups][hidden / 32]
  Q8Block* hidden_blocks;          // [blocks of packed groups][inner / 32]
  float* partial;                  // out [rows][hidden]
};

// Blocks of 16 tokens that a group takes of input_blocks and of hidden_blocks: none where it is too small to be packed.
int packed_blocks(const Kernels& kernels, int count);

// Runs `groups`, of each: planes, level, count and first_row, the number of its first pair; sets first_block and the
// order of `groups`. `input` has `hidden` columns.
void run_expert_batch(const Kernels& kernels, ThreadPool& pool, const PlaneTables& tables, const ExpertShape& shape,
                      const Q8Activations& input, std::span<ExpertGroup*> groups, const ExpertBatch& batch);

enum class ExpertMatrix { gate, up, down };

// One matrix of an expert, from the slots that hold its planes; see formats.h.
PlaneMatrix expert_matrix(const ExpertPlanes& planes, const ExpertShape& shape, int level, ExpertMatrix which);

// Rows of a unit of work: whole groups of the hidden activations, so that who computes them can quantise them too.
constexpr int kExpertUnitRows = kGroup;

// One token waits for memory and threads run evenly; products of many have pieces of uneven speed.
constexpr int share_of_round(int tokens) { return tokens == 1 ? 88 : 50; }

// Calls f(group, row, end, follows) for all rows of `groups` matrices of `rows` rows each, in runs of whole units, for
// at most `most_tokens` tokens each. Where `follows`, the same thread goes on with row 0 of the next group.
template <typename F>
void for_each_rows(ThreadPool& pool, int groups, int rows, int most_tokens, F&& f) {
  const int units = rows / kExpertUnitRows;
  const UnitSplit split(groups * units, pool.threads(), share_of_round(most_tokens));
  pool.for_each(split.pieces(), 1, [&](int first, int last, int) {
    for (int unit = split.begin(first), stop = split.begin(last); unit < stop;) {
      const int group = unit / units, from = unit % units, to = std::min(units, from + stop - unit);
      unit += to - from;
      f(group, from * kExpertUnitRows, to * kExpertUnitRows, unit < stop);
    }
  });
}

}  // namespace moestro
