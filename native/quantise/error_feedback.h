// Codes chosen by what an expert's inputs will make of their errors, not by the errors alone.
//
// With C = the mean of x x^T over the inputs x of a matrix, an error e of a row changes its output by e^T C e on
// average. Columns are coded in order, and each column's error is handed on to the columns that are not coded yet, so
// that on these inputs they cancel it: with C = (U + I) D (U + I)^T, U strictly upper, column k is coded as if its
// weight were
//   w_k + sum over j < k of (w_j - q_j) U[j][k]
// (GPTQ, arXiv:2210.17323, in the form of LDLQ, QuIP, arXiv:2307.13304). A nested code has an error, and hence a
// target, at every level; a code is chosen for the sum of the costs of levels 2, 3 and 4, weighted as in TileCodebook,
// and of what the target of level 8 lies beyond the reach of the code's residual. After that, single weights are coded
// anew in rounds of coordinate descent on the same sum, groups try their neighbours on the grid of scales, and last the
// residuals are chosen once more by themselves.
//
// C is kept in blocks on its diagonal: `width` consecutive columns each, so that large experts fit in memory. Errors
// are not handed from one block to the next.
#pragma once
#include <vector>

#include "native/base/status.h"
#include "native/quantise/expert_tile.h"

namespace moestro {

// One block: what encode_strip needs of its columns.
struct FeedbackBlock {
  int first_column, columns;
  std::vector<float> covariance;  // [columns][columns], mean of its diagonal 1, damped
  std::vector<float> hand_on;     // [columns][columns]: U, row j at and below the diagonal unused
};

// `band`: float32 [cols][width]; row i holds C[i][first .. first + width) of the block that column i is in, whose last
// entries are unused where a block is shorter. Errors: INVALID_ARGUMENT when a value is not finite or the diagonal
// holds a negative number.
Result<std::vector<FeedbackBlock>> feedback_blocks(const float* band, int cols, int width, const char* name);

// Scratch of encode_strip, for blocks of up to `columns` columns. Kept by the caller from strip to strip.
struct FeedbackScratch {
  explicit FeedbackScratch(int columns) : values(static_cast<size_t>(columns) * kTileRows * 13) {}
  std::vector<float> values;
};

// 16 rows of a block: w[column][row] for its columns; row_scale [16], positive or 0 for a row of zeros. Fills
// tiles[0 .. columns / 32) and adds to errors e^T C e of every level and w^T C w.
void encode_strip(const TileCodebook& book, const FeedbackBlock& block, const float (*w)[kTileRows],
                  const float* row_scale, FeedbackScratch* scratch, TileCodes* tiles, TileErrors* errors);

}  // namespace moestro
