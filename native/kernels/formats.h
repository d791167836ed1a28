// The weight and activation formats that every kernel and the quantiser share. Integer layout, no functions.
//
// Tile: 16 rows x 32 columns. A matrix [rows, cols] (rows % 16 == 0, cols % 32 == 0) is a row-major grid of tiles;
// tile index = (row / 16) * (cols / 32) + col / 32. Within a tile, byte p = (row % 16) * 4 + col % 4 of step
// j = (col % 32) / 4, so that a step is 64 bytes: 16 rows x 4 columns, one lane a row. That is the operand order of
// vpdpbusd with four activations broadcast to all lanes.
//
// Accumulation is fixed for all variants: per row, integers are exact within a group of 32 columns; groups are
// added in ascending order with acc = fma(float(int), row_scale_of_group * activation_scale, acc). Hence every
// variant, thread count and batch size gives the same bits.
#pragma once
#include <cstddef>
#include <cstdint>

namespace moestro {

constexpr int kTileRows = 16;
constexpr int kGroup = 32;                        // columns that share a scale
constexpr int kTileWeights = kTileRows * kGroup;  // 512
constexpr int kBitTileBytes = kTileWeights / 8;   // 64: what one tile takes in every bit slot
constexpr int kScaleTileBytes = kTileRows;        // 16 one-byte group scales, one a row

// Activations as int8: q[token][cols], scale[token][cols / 32], sum[token][cols / 32] = sum of q in the group.
// scale = max|x| / 127 in the group (0 for an all-zero group); q = round-half-even(x * (1 / scale)).
// q rows are 64-byte aligned (cols % 64 may be 32: rows are cols bytes apart, so only 32-byte alignment is sure).
struct Q8Activations {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  int cols;
};

// The same activations for products with many tokens: one group of 32 columns of 16 tokens, side by side. A matrix
// [tokens, cols] is [ceil(tokens / 16)][cols / 32] of them; the tokens that fill the last ones up may hold anything.
constexpr int kBlockTokens = 16;
struct alignas(64) Q8Block {
  int8_t q[kBlockTokens][kGroup];
  float scale[kBlockTokens];
  int32_t bias[kBlockTokens];  // -128 times the sum of q: what products with weights stored 128 too high start from
};

// Dense matrix at 4, 6 or 8 bits a weight and its scales. Codes of all tiles in order, then what scales them:
//   8  code u8 in [1, 255], 512 bytes a tile, step after step.  weight = f16 scale[tile][row] * (code - 128)     (8.5)
//   6  code u6, 384 bytes a tile.                                weight = f16 scale[tile][row] * (code - 32)      (6.5)
//      64-byte pieces q = 0..3 hold the low nibbles of steps 2q (low nibble) and 2q + 1 (high nibble) at byte p; pieces
//      4 + h, h = 0, 1, the high two bits of steps 4h..4h+3: byte p carries step 4h + f in bits 2f, 2f + 1
//   4  code u4, 256 bytes a tile, pieces as the four above.      weight = row_scale[row] * g * kDenseTable[code] (4.25)
//      g is the group's scale, E3M4 as below; row scales are bf16 and stand after the group scales
// Sums of 8 and 6 bits are those of the accumulation above; those of 4 bits are multiplied with the row's scale last.
struct DenseMatrix {
  int bits;
  const uint8_t* codes;
  const uint16_t* scales;       // 8 and 6 bits: f16 [tile][row]
  const uint8_t* group_scales;  // 4 bits: E3M4 [tile][row]
  const uint16_t* row_scales;   // 4 bits: bf16 [rows]
  int rows, cols;
};

// Values of 4-bit codes: fitted to groups of normally and of Student-t distributed weights, each with its best scale.
constexpr int8_t kDenseTable[16] = {-127, -95, -74, -58, -44, -31, -20, -9, 2, 12, 23, 34, 47, 62, 79, 101};

// One matrix of an expert on bit-nested planes. weight = row_scale[r] * g * T[c] where g is the group's scale and c
// the top `level` bits of its 4-bit code; at level 8, weight = row_scale[r] * g * (2 T4[c] + step * r4 + offset) / 2
// with r4 in 0..15 the residual.
//
// The expert's tiles are numbered through gate, up, down; a slot holds kBitTileBytes of every tile, in order:
//   slots 0, 1   top two bits: slot h holds steps 4h..4h+3; byte p carries step 4h+f in bits 2f, 2f+1
//   slot 2       third bit, slot 3 fourth bit: little-endian u64 word j is step j, bit p of it belongs to byte p
//   slots 4..7   residual: slot 4+q holds steps 2q (low nibble) and 2q+1 (high nibble) at byte p
// Group scales: one byte E3M4 a (tile, row): sign bit 7, exponent e bits 4-6, mantissa m bits 0-3,
// value = (1 + m / 16) * 2^(e - 7). Row scales are bf16.
//
// The scale region of a record: [tiles x 16 bytes of group scales][bf16 row scales of gate, up, down][zeros to 4096].
struct PlaneMatrix {
  const uint8_t* slots[8];      // each already advanced to this matrix's first tile; unused ones null
  const uint8_t* group_scales;  // advanced likewise
  const uint16_t* row_scales;   // bf16 [rows]
  int rows, cols;
  // Where the product begins that the same thread runs next at the same level, if that is known: lines that are asked
  // for as this one ends, so that memory is never idle in between. Not read.
  const uint8_t* next_slots[8];
  const uint8_t* next_scales;  // null: not known
};

// Tables of one model. Unsigned: entry + 128, as vpdpbusd wants. |entry| <= 127.
struct PlaneTables {
  alignas(16) uint8_t t2[16];  // 4 entries, repeated
  alignas(16) uint8_t t3[16];  // 8 entries, repeated
  alignas(16) uint8_t t4[16];
  int residual_step;    // 3
  int residual_offset;  // -23
};

// KV cache storage of one layer: blocks of `block_tokens` positions (a multiple of kKvChunk). Keys lie so that 16
// positions are 16 lanes, and scores need no sum over lanes.
// f16:  u16, K [block][kv_head][position in block / 16][head_dim][16], V [block][kv_head][position in block][head_dim].
// int8: the same in int8 with one f32 scale per (block, kv_head, position): value = scale * q.
constexpr int kKvChunk = 16;
enum class KvType : uint8_t { f16 = 0, int8 = 1 };
struct KvLayer {
  KvType type;
  uint8_t *k, *v;
  float *k_scale, *v_scale;  // int8 only, [block][kv_head][position]
  int kv_heads, head_dim, block_tokens;
};

}  // namespace moestro
