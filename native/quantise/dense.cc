// Dense matrices at 4, 6 and 8 bits (DenseMatrix of kernels/formats.h): where codes and scales go. What they are is
// decided in dense_groups.cc.
#include <cmath>
#include <cstring>
#include <vector>

#include "native/quantise/dense_groups.h"
#include "native/quantise/half.h"
#include "native/quantise/quantise.h"

namespace moestro {
namespace {

Status invalid(const std::string& what) { return Status("INVALID_ARGUMENT", what); }

Status check_sizes(int rows, int cols, int bits, size_t bytes) {
  if (bits != 4 && bits != 6 && bits != 8)
    return invalid("Cannot lay out a dense matrix of " + std::to_string(bits) + " bits: needed 4, 6 or 8");
  if (rows < 1 || cols < kGroup || cols % kGroup != 0)
    return invalid("Cannot lay out a dense matrix of " + std::to_string(rows) + " x " + std::to_string(cols) +
                   ": needed at least one row and a multiple of 32 columns");
  if (bytes != dense_bytes(rows, cols, bits))
    return invalid("Cannot use " + std::to_string(bytes) + " bytes for a dense matrix of " + std::to_string(rows) +
                   " x " + std::to_string(cols) + " at " + std::to_string(bits) + " bits: needed " +
                   std::to_string(dense_bytes(rows, cols, bits)));
  return {};
}

size_t tile_count(int rows, int cols) {
  return static_cast<size_t>((rows + kTileRows - 1) / kTileRows) * static_cast<size_t>(cols / kGroup);
}

// The largest weight whose scale the format holds.
const char* limit_of(int bits) { return bits == 8 ? "8.3e6" : bits == 6 ? "1.9e6" : "1e15"; }
constexpr float kRowLimit = 1e15f;

// Parts of one matrix in its bytes.
struct Places {
  size_t tiles_across;
  int bits;
  size_t code_tile, scale_tile;  // bytes
  size_t scales, row_scales;     // where they begin

  Places(int rows, int cols, int bits_)
      : tiles_across(static_cast<size_t>(cols / kGroup)),
        bits(bits_),
        code_tile(static_cast<size_t>(bits_) * kBitTileBytes),
        scale_tile(bits_ == 4 ? kScaleTileBytes : 2 * kTileRows),
        scales(tile_count(rows, cols) * code_tile),
        row_scales(scales + tile_count(rows, cols) * scale_tile) {}

  size_t tile(int row, size_t across) const { return static_cast<size_t>(row / kTileRows) * tiles_across + across; }
};

// Code of column `i` of row `lane` of a tile, out of its bytes and back.
int get_code(const uint8_t* tile, int bits, int lane, int i) {
  const int step = i / 4, byte = lane * 4 + i % 4;
  if (bits == 8) return tile[step * 64 + byte];
  const int low = tile[step / 2 * 64 + byte] >> (step % 2 * 4) & 15;
  return bits == 4 ? low : low | (tile[(4 + step / 4) * 64 + byte] >> (step % 4 * 2) & 3) << 4;
}

// The tile's bytes are zero where nothing was put yet, except at 8 bits.
void put_code(uint8_t* tile, int bits, int lane, int i, int code) {
  const int step = i / 4, byte = lane * 4 + i % 4;
  if (bits == 8) {
    tile[step * 64 + byte] = static_cast<uint8_t>(code);
    return;
  }
  tile[step / 2 * 64 + byte] |= static_cast<uint8_t>((code & 15) << (step % 2 * 4));
  if (bits == 6) tile[(4 + step / 4) * 64 + byte] |= static_cast<uint8_t>(code >> 4 << (step % 4 * 2));
}

bool encode_row(const std::vector<float>& w, int row, const Places& places, uint8_t* out) {
  const int lane = row % kTileRows;
  uint8_t codes[kGroup];
  for (size_t across = 0; across < places.tiles_across; ++across) {
    const size_t tile = places.tile(row, across);
    uint16_t scale = 0;
    if (!encode_dense_group(w.data() + across * kGroup, places.bits, &scale, codes)) return false;
    std::memcpy(out + places.scales + tile * places.scale_tile + 2 * static_cast<size_t>(lane), &scale, 2);
    for (int i = 0; i < kGroup; ++i) put_code(out + tile * places.code_tile, places.bits, lane, i, codes[i]);
  }
  return true;
}

bool encode_row_of_four(const std::vector<float>& w, int row, const Places& places, uint8_t* out) {
  float maximum = 0.0f;
  for (float weight : w) maximum = std::fmax(maximum, std::fabs(weight));
  if (maximum > kRowLimit) return false;
  const uint16_t row_scale = dense_row_scale(maximum);
  std::memcpy(out + places.row_scales + 2 * static_cast<size_t>(row), &row_scale, 2);
  if (row_scale == 0) return true;
  const int lane = row % kTileRows;
  float groups[kGroup][kGroupsAtOnce];
  DenseGroups encoded;
  for (size_t first = 0; first < places.tiles_across; first += kGroupsAtOnce) {
    const size_t count = std::min<size_t>(kGroupsAtOnce, places.tiles_across - first);
    for (size_t g = 0; g < kGroupsAtOnce; ++g) {
      for (size_t i = 0; i < kGroup; ++i) groups[i][g] = g < count ? w[(first + g) * kGroup + i] : 0.0f;
    }
    encode_dense_groups(groups, bf16_value(row_scale), &encoded);
    for (size_t g = 0; g < count; ++g) {
      const size_t tile = places.tile(row, first + g);
      out[places.scales + tile * places.scale_tile + static_cast<size_t>(lane)] = encoded.scale[g];
      for (int i = 0; i < kGroup; ++i) put_code(out + tile * places.code_tile, 4, lane, i, encoded.code[i][g]);
    }
  }
  return true;
}

}  // namespace

size_t dense_bytes(int rows, int cols, int bits) {
  const size_t tiles = tile_count(rows, cols);
  if (bits != 4) return tiles * (static_cast<size_t>(bits) * kBitTileBytes + 2 * kTileRows);
  const size_t padded_rows = static_cast<size_t>(rows + kTileRows - 1) / kTileRows * kTileRows;
  return tiles * (4 * kBitTileBytes + kScaleTileBytes) + 2 * padded_rows;
}

Status quantise_dense(const SourceMatrix& source, int rows, int cols, int bits, uint8_t* out, size_t out_bytes) {
  const Status sizes = check_sizes(rows, cols, bits, out_bytes);
  if (!sizes.ok()) return sizes;
  size_t block_elements = 0, block_bytes = 0;
  if (!source_block(source.dtype, &block_elements, &block_bytes))
    return Status("UNSUPPORTED_DTYPE", "Cannot quantise a dense matrix: dtype \"" + source.dtype + "\"");
  const size_t width = static_cast<size_t>(cols);
  const size_t row_bytes = width / block_elements * block_bytes;
  if (width % block_elements != 0 || source.bytes != row_bytes * static_cast<size_t>(rows))
    return invalid("Cannot quantise a dense matrix of " + std::to_string(rows) + " x " + std::to_string(cols) +
                   ": got " + std::to_string(source.bytes) + " bytes of " + source.dtype + ", needed " +
                   std::to_string(row_bytes * static_cast<size_t>(rows)) + " in blocks of " +
                   std::to_string(block_elements));

  const Places places(rows, cols, bits);
  std::memset(out, 0, out_bytes);
  // Rows that pad the last tile have scale 0; at 8 bits their codes stand for 0 besides.
  if (bits == 8) std::memset(out, 128, places.scales);
  std::vector<float> row(width);
  for (int r = 0; r < rows; ++r) {
    const Status status =
        dequantise(source.dtype, source.data + static_cast<size_t>(r) * row_bytes, row_bytes, width, row.data());
    if (!status.ok()) return status;
    bool finite = true;
    for (float weight : row) finite &= std::isfinite(weight);
    if (!finite || !(bits == 4 ? encode_row_of_four(row, r, places, out) : encode_row(row, r, places, out)))
      return Status("SOURCE_INVALID", "Cannot quantise a dense matrix: row " + std::to_string(r) +
                                          " holds a weight that is no finite number below " + limit_of(bits));
  }
  return {};
}

Status dequantise_dense(const uint8_t* blocks, size_t bytes, int rows, int cols, int bits, float* out) {
  const Status sizes = check_sizes(rows, cols, bits, bytes);
  if (!sizes.ok()) return sizes;
  const Places places(rows, cols, bits);
  for (int r = 0; r < rows; ++r) {
    const int lane = r % kTileRows;
    for (size_t across = 0; across < places.tiles_across; ++across) {
      const size_t tile = places.tile(r, across);
      const uint8_t* scales = blocks + places.scales + tile * places.scale_tile;
      float scale = 0.0f;
      uint16_t half;
      if (bits == 4) {
        std::memcpy(&half, blocks + places.row_scales + 2 * static_cast<size_t>(r), 2);
        scale = bf16_value(half) * dense_group_scale(scales[lane]);
      } else {
        std::memcpy(&half, scales + 2 * static_cast<size_t>(lane), 2);
        scale = f16_value(half);
      }
      float* group = out + static_cast<size_t>(r) * static_cast<size_t>(cols) + across * kGroup;
      for (int i = 0; i < kGroup; ++i) {
        const int code = get_code(blocks + tile * places.code_tile, bits, lane, i);
        const int value = bits == 4 ? kDenseTable[code] : code - (bits == 6 ? 32 : 128);
        group[i] = scale * static_cast<float>(value);
      }
    }
  }
  return {};
}

}  // namespace moestro
