// One tile of an expert matrix: 16 rows of 32 columns, each row of it one group with one scale. The search for scale
// and codes, and the way codes lie in the slots of a record (formats.h).
//
// Method. With scale s and x = w / s, choosing code c costs
//   sum over levels l of a_l (x - T_l[c])^2  =  A x^2 + C_c - x D_c,   D_c = 2 sum a_l T_l[c],  C_c = sum a_l T_l[c]^2
// (T_l[c] is the table of level l at the top l bits of c), so the best code is the lowest of 16 lines in x, and the
// cost of a scale is a sum of minima: nothing to sort, no branch. Every scale on the E3M4 grid for which the group's
// maximum falls on a sensible place of the table is tried with both signs. Importance multiplies a whole weight, so
// it moves the scale and never the choice between codes.
//
// The 16 lanes of a vector are the 16 rows; columns are walked in order. Only adds, multiplies and comparisons of
// float32 are used and none is fused, so all instruction sets give the same bytes.
#pragma once
#include <cstdint>

#include "native/kernels/formats.h"

namespace moestro {

// What the search needs of the tables, made once per expert.
struct TileCodebook {
  alignas(64) float line_slope[16];   // D_c
  alignas(64) float line_offset[16];  // C_c
  float value2[16], value3[16], value4[16];
  float weight2, weight3, weight4, weight8;  // a_l; weight8 is 0 when no residual is stored
  float reach_low, reach_high;               // what level 8 can reach without clipping, in units of s
  float residual_step, residual_offset;
};

// `only_level`: 2, 3 or 4 when no other level is to have a say, else 0.
TileCodebook make_codebook(const PlaneTables& tables, bool residual, int only_level);

// Codes of one tile in reading order, before packing.
struct TileCodes {
  uint8_t scale[kTileRows];             // E3M4
  uint8_t code[kGroup][kTileRows];      // 0..15
  uint8_t residual[kGroup][kTileRows];  // 0..15
};

// Sums of importance * error^2 per level (2, 3, 4, 8), and of importance * w^2.
struct TileErrors {
  double level[4] = {0, 0, 0, 0};
  double energy = 0;
};

// Rows of weights as columns: w[column][row], importance per column. row_scale [16], positive or 0 (a row of zeros).
void encode_tile(const TileCodebook& book, const float (*w)[kTileRows], const float* importance, const float* row_scale,
                 TileCodes* out, TileErrors* errors);

// The row scale for a row of this largest magnitude, as bf16: the largest scale the grid reaches then still fits.
uint16_t row_scale_for(float row_maximum);

float group_scale_value(uint8_t scale);

// Writes the codes at this tile's place in each of the record's slots; slots[4] null for no residual.
void pack_tile(const TileCodes& codes, uint8_t* const slots[8], int64_t tile);
// Reads back the code (its low bits zero where slots[2], slots[3] are null) and the residual (where slots[4] is not).
void unpack_tile(const uint8_t* const slots[8], int64_t tile, TileCodes* out);

}  // namespace moestro
