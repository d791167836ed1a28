// The groups of 32 weights of a dense matrix (DenseMatrix of kernels/formats.h): which scale and which codes.
//
// 8 bits  the scale follows from the group's maximum
// 6 bits  of a few scales near that which maps the maximum to the end of the range, the one of least squared error
// 4 bits  every scale of the E3M4 grid for which the group's maximum falls on a sensible place of the table is tried
//         with both signs. With scale s and x = w / s, code c costs (x - T[c])^2 = x^2 + T[c]^2 - 2 x T[c], so the best
//         is the lowest of 16 lines in x: nothing to sort, no branch.
// All instruction sets give the same bytes: nothing is fused, and sums run over columns in order.
#pragma once
#include <cstdint>

#include "native/kernels/formats.h"

namespace moestro {

constexpr int kGroupsAtOnce = 16;

// One group to codes of `bits` 8 or 6 and its f16 scale. False when f16 cannot hold the scale.
bool encode_dense_group(const float* w, int bits, uint16_t* scale, uint8_t* codes);

// 4-bit codes of 16 groups that share a row scale (positive), w[column][group].
struct DenseGroups {
  uint8_t scale[kGroupsAtOnce];  // E3M4
  uint8_t code[kGroup][kGroupsAtOnce];
};
void encode_dense_groups(const float (*w)[kGroupsAtOnce], float row_scale, DenseGroups* out);

// bf16 scale of a row with this largest magnitude: the largest group scale then still reaches it. 0 for a row of zeros,
// and for one so small that dividing by its scale could overflow.
uint16_t dense_row_scale(float row_maximum);

float dense_group_scale(uint8_t scale);

}  // namespace moestro
