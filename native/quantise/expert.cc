// One expert to and from its record. Works on strips of 16 rows, so that scratch is 16 rows of float32 however large
// the expert is.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "native/quantise/error_feedback.h"
#include "native/quantise/expert_tile.h"
#include "native/quantise/half.h"
#include "native/quantise/quantise.h"

namespace moestro {
namespace {

constexpr size_t kPage = 4096;
// Squares of larger weights, summed over an expert, leave the range of float32. No model has such weights.
constexpr float kWeightMax = 1e15f;

size_t whole_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
size_t tile_count(const ExpertShape& shape) {
  return 3 * static_cast<size_t>(shape.hidden_size) * static_cast<size_t>(shape.expert_size) / kTileWeights;
}

Status invalid(const std::string& what) { return Status("INVALID_ARGUMENT", what); }

Status check_shape(const ExpertShape& shape) {
  for (int size : {shape.hidden_size, shape.expert_size}) {
    if (size < kGroup || size > 262144 || size % kGroup != 0) {
      return invalid("Cannot lay out an expert of hidden size " + std::to_string(shape.hidden_size) +
                     " and expert size " + std::to_string(shape.expert_size) +
                     ": needed multiples of 32 from 32 to 262144");
    }
  }
  return {};
}

Status check_tables(const PlaneTables& tables) {
  // Entry -128 has no place in an int8 product; the step divides.
  const bool entries_ok = [&] {
    for (int i = 0; i < 16; ++i)
      if (tables.t2[i] == 0 || tables.t3[i] == 0 || tables.t4[i] == 0) return false;
    return true;
  }();
  if (!entries_ok || tables.residual_step < 1 || tables.residual_step > 64 || tables.residual_offset < -512 ||
      tables.residual_offset > 512) {
    return invalid(
        "Cannot use the plane tables: needed entries in [-127, 127], a residual step in [1, 64] and an "
        "offset in [-512, 512]");
  }
  return {};
}

Status check_importance(const float* importance, int cols, const char* name) {
  if (importance == nullptr) return {};
  for (int i = 0; i < cols; ++i) {
    if (!(importance[i] >= 0.0f && importance[i] <= 1e30f)) {
      return invalid(std::string("Cannot use the importance of ") + name + " column " + std::to_string(i) + ": got " +
                     std::to_string(importance[i]) + ", needed a number from 0 to 1e30");
    }
  }
  return {};
}

// Importance as the encoder takes it: mean 1, so that sums stay in range, and no column quite without a say.
std::vector<float> normalised(const float* importance, int cols) {
  std::vector<float> out(static_cast<size_t>(cols), 1.0f);
  if (importance == nullptr) return out;
  double sum = 0;
  for (int i = 0; i < cols; ++i) sum += importance[i];
  if (!(sum > 0)) return out;
  const double mean = sum / cols;
  for (int i = 0; i < cols; ++i) out[static_cast<size_t>(i)] = static_cast<float>(importance[i] / mean) + 1e-3f;
  return out;
}

// Where the parts of a record lie, and how far a reader or writer has come through gate, up and down.
struct RecordCursor {
  int64_t tile = 0;         // tiles before the matrix at hand
  size_t row_scale_at = 0;  // byte offset of its row scales
};

struct MatrixView {
  const char* name;
  const SourceMatrix* source;
  int rows, cols;
  const float* importance;
  int width;  // of importance, 1 or more
};

Status check_importance(const ExpertImportance& importance, const ExpertShape& shape) {
  if (importance.width > 1) {
    if (importance.gate_up != nullptr && importance.down != nullptr && importance.width % kGroup == 0 &&
        importance.width <= 4096)
      return {};
    return invalid("Cannot use the importance of an expert: its width is " + std::to_string(importance.width) +
                   ", needed 1, or a multiple of 32 up to 4096 with products for all matrices");
  }
  const Status status = check_importance(importance.gate_up, shape.hidden_size, "gate and up");
  return status.ok() ? check_importance(importance.down, shape.expert_size, "down") : status;
}

// Writes one tile of the record.
void put_tile(const TileCodes& codes, uint8_t* record, uint8_t* const slots[8], int64_t index) {
  std::memcpy(record + index * kScaleTileBytes, codes.scale, kScaleTileBytes);
  pack_tile(codes, slots, index);
}

// How the strips of one matrix are coded: alone, or with errors handed on along the columns of a block.
struct StripCoder {
  std::vector<float> importance;      // width 1
  std::vector<FeedbackBlock> blocks;  // wider
  FeedbackScratch scratch{0};
  std::vector<TileCodes> tiles;
};

Status make_coder(const MatrixView& m, StripCoder* coder) {
  coder->tiles.resize(static_cast<size_t>(m.cols) / kGroup);
  if (m.width == 1) {
    coder->importance = normalised(m.importance, m.cols);
    return {};
  }
  Result<std::vector<FeedbackBlock>> blocks = feedback_blocks(m.importance, m.cols, m.width, m.name);
  if (!blocks.ok()) return blocks.status();
  coder->blocks = std::move(blocks.value());
  coder->scratch = FeedbackScratch(std::min(m.width, m.cols));
  return {};
}

// columns[column][row] of one strip to all its tiles.
void encode_columns(const TileCodebook& book, const float (*columns)[kTileRows], const float* row_scale,
                    StripCoder* coder, TileErrors* errors) {
  for (const FeedbackBlock& block : coder->blocks)
    encode_strip(book, block, columns + block.first_column, row_scale, &coder->scratch,
                 coder->tiles.data() + block.first_column / kGroup, errors);
  if (!coder->blocks.empty()) return;
  for (size_t tile = 0; tile < coder->tiles.size(); ++tile)
    encode_tile(book, columns + tile * kGroup, coder->importance.data() + tile * kGroup, row_scale, &coder->tiles[tile],
                errors);
}

Status encode_matrix(const MatrixView& m, const TileCodebook& book, uint8_t* record, uint8_t* const slots[8],
                     RecordCursor* cursor, TileErrors* errors) {
  size_t block_elements = 0, block_bytes = 0;
  if (!source_block(m.source->dtype, &block_elements, &block_bytes))
    return Status("UNSUPPORTED_DTYPE",
                  "Cannot quantise " + std::string(m.name) + ": dtype \"" + m.source->dtype + "\"");
  const size_t cols = static_cast<size_t>(m.cols);
  if (cols % block_elements != 0)
    return invalid("Cannot quantise " + std::string(m.name) + ": " + std::to_string(cols) + " columns of " +
                   m.source->dtype + ", needed a multiple of " + std::to_string(block_elements));
  const size_t row_bytes = cols / block_elements * block_bytes;
  if (m.source->bytes != row_bytes * static_cast<size_t>(m.rows))
    return invalid("Cannot quantise " + std::string(m.name) + ": got " + std::to_string(m.source->bytes) +
                   " bytes, needed " + std::to_string(row_bytes * static_cast<size_t>(m.rows)));

  StripCoder coder;
  if (const Status status = make_coder(m, &coder); !status.ok()) return status;
  std::vector<float> strip(cols * kTileRows), columns(cols * kTileRows);
  alignas(64) float row_scale[kTileRows];
  for (int row0 = 0; row0 < m.rows; row0 += kTileRows) {
    const size_t strip_bytes = row_bytes * kTileRows;
    const Status status = dequantise(m.source->dtype, m.source->data + static_cast<size_t>(row0) * row_bytes,
                                     strip_bytes, strip.size(), strip.data());
    if (!status.ok()) return status;
    for (int row = 0; row < kTileRows; ++row) {
      float maximum = 0.0f;
      bool finite = true;
      for (size_t c = 0; c < cols; ++c) {
        const float v = std::fabs(strip[static_cast<size_t>(row) * cols + c]);
        finite &= v <= kWeightMax;
        maximum = v > maximum ? v : maximum;
      }
      if (!finite)
        return Status("SOURCE_INVALID", "Cannot quantise " + std::string(m.name) + ": row " +
                                            std::to_string(row0 + row) +
                                            " holds a weight that is no finite number below 1e15");
      const uint16_t bits = row_scale_for(maximum);
      row_scale[row] = bf16_value(bits);
      std::memcpy(record + cursor->row_scale_at + static_cast<size_t>(row0 + row) * 2, &bits, 2);
      // A row too small for a scale is stored as zeros.
      if (bits == 0) std::memset(&strip[static_cast<size_t>(row) * cols], 0, cols * sizeof(float));
    }
    for (size_t c = 0; c < cols; ++c)
      for (size_t row = 0; row < kTileRows; ++row) columns[c * kTileRows + row] = strip[row * cols + c];
    encode_columns(book, reinterpret_cast<const float(*)[kTileRows]>(columns.data()), row_scale, &coder, errors);
    const int64_t first_tile = cursor->tile + static_cast<int64_t>(row0 / kTileRows) * (m.cols / kGroup);
    for (size_t tile = 0; tile < coder.tiles.size(); ++tile)
      put_tile(coder.tiles[tile], record, slots, first_tile + static_cast<int64_t>(tile));
  }
  cursor->tile += static_cast<int64_t>(m.rows / kTileRows) * (m.cols / kGroup);
  cursor->row_scale_at += static_cast<size_t>(m.rows) * 2;
  return {};
}

float level_value(const PlaneTables& tables, int level, int code, int residual) {
  switch (level) {
    case 2:
      return static_cast<float>(tables.t2[code >> 2] - 128);
    case 3:
      return static_cast<float>(tables.t3[code >> 1] - 128);
    case 4:
      return static_cast<float>(tables.t4[code] - 128);
    default:
      return 0.5f *
             static_cast<float>(2 * (tables.t4[code] - 128) + tables.residual_step * residual + tables.residual_offset);
  }
}

void decode_matrix(const uint8_t* record, const uint8_t* const slots[8], const PlaneTables& tables, int level, int rows,
                   int cols, RecordCursor* cursor, float* out) {
  TileCodes codes{};
  for (int row0 = 0; row0 < rows; row0 += kTileRows) {
    for (int col0 = 0; col0 < cols; col0 += kGroup) {
      const int64_t index = cursor->tile + static_cast<int64_t>(row0 / kTileRows) * (cols / kGroup) + col0 / kGroup;
      unpack_tile(slots, index, &codes);
      for (int row = 0; row < kTileRows; ++row) {
        uint16_t bits;
        std::memcpy(&bits, record + cursor->row_scale_at + static_cast<size_t>(row0 + row) * 2, 2);
        const float scale = bf16_value(bits) * group_scale_value(record[index * kScaleTileBytes + row]);
        float* to = out + static_cast<size_t>(row0 + row) * static_cast<size_t>(cols) + col0;
        for (int c = 0; c < kGroup; ++c)
          to[c] = scale * level_value(tables, level, codes.code[c][row], codes.residual[c][row]);
      }
    }
  }
  cursor->tile += static_cast<int64_t>(rows / kTileRows) * (cols / kGroup);
  cursor->row_scale_at += static_cast<size_t>(rows) * 2;
}

}  // namespace

size_t expert_scale_bytes(const ExpertShape& shape) {
  const size_t row_scales = 2 * (2 * static_cast<size_t>(shape.expert_size) + static_cast<size_t>(shape.hidden_size));
  return whole_pages(tile_count(shape) * kScaleTileBytes + row_scales);
}
size_t expert_bit_bytes(const ExpertShape& shape) { return whole_pages(tile_count(shape) * kBitTileBytes); }
size_t expert_record_bytes(const ExpertShape& shape, int bits_stored) {
  return expert_scale_bytes(shape) + static_cast<size_t>(bits_stored) * expert_bit_bytes(shape);
}

Status quantise_expert(const ExpertShape& shape, const SourceMatrix& gate, const SourceMatrix& up,
                       const SourceMatrix& down, const PlaneTables& tables, bool residual, int only_level,
                       const ExpertImportance& importance, uint8_t* out, size_t out_bytes, LevelErrors* errors) {
  for (const Status& status : {check_shape(shape), check_tables(tables), check_importance(importance, shape)})
    if (!status.ok()) return status;
  const size_t needed = expert_record_bytes(shape, residual ? 8 : 4);
  if (out_bytes != needed)
    return invalid("Cannot quantise an expert into " + std::to_string(out_bytes) + " bytes: its record needs " +
                   std::to_string(needed));

  std::memset(out, 0, out_bytes);  // the ends of the scale region and of every bit stay zero
  const size_t bits_at = expert_scale_bytes(shape), bit_bytes = expert_bit_bytes(shape);
  uint8_t* slots[8] = {};
  for (int slot = 0; slot < (residual ? 8 : 4); ++slot)
    slots[slot] = out + bits_at + static_cast<size_t>(slot) * bit_bytes;

  const TileCodebook book = make_codebook(tables, residual, only_level);
  RecordCursor cursor{0, tile_count(shape) * kScaleTileBytes};
  TileErrors sums;
  const MatrixView matrices[3] = {
      {"gate", &gate, shape.expert_size, shape.hidden_size, importance.gate_up, importance.width},
      {"up", &up, shape.expert_size, shape.hidden_size, importance.gate_up, importance.width},
      {"down", &down, shape.hidden_size, shape.expert_size, importance.down, importance.width},
  };
  for (const MatrixView& matrix : matrices) {
    const Status status = encode_matrix(matrix, book, out, slots, &cursor, &sums);
    if (!status.ok()) return status;
  }
  if (errors != nullptr)
    for (size_t i = 0; i < 4; ++i) (*errors)[i] = sums.energy > 0 ? sums.level[i] / sums.energy : 0.0;
  return {};
}

Status dequantise_expert(const ExpertShape& shape, const uint8_t* record, size_t record_bytes,
                         const PlaneTables& tables, int level, float* gate, float* up, float* down) {
  Status status = check_shape(shape);
  if (status.ok()) status = check_tables(tables);
  if (!status.ok()) return status;
  if (level != 2 && level != 3 && level != 4 && level != 8)
    return invalid("Cannot dequantise an expert at level " + std::to_string(level) + ": needed 2, 3, 4 or 8");
  const size_t needed = expert_record_bytes(shape, level);
  if (record_bytes < needed)
    return invalid("Cannot dequantise an expert at level " + std::to_string(level) + ": got " +
                   std::to_string(record_bytes) + " bytes, needed " + std::to_string(needed));
  const uint8_t* slots[8] = {};
  for (int slot = 0; slot < level; ++slot)
    slots[slot] = record + expert_scale_bytes(shape) + static_cast<size_t>(slot) * expert_bit_bytes(shape);
  RecordCursor cursor{0, tile_count(shape) * kScaleTileBytes};
  decode_matrix(record, slots, tables, level, shape.expert_size, shape.hidden_size, &cursor, gate);
  decode_matrix(record, slots, tables, level, shape.expert_size, shape.hidden_size, &cursor, up);
  decode_matrix(record, slots, tables, level, shape.hidden_size, shape.expert_size, &cursor, down);
  return {};
}

}  // namespace moestro
