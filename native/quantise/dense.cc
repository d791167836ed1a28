// Dense matrices in the 8-bit block format (DenseMatrix of kernels/formats.h): one f16 scale a group of 32, codes in
// [1, 255] around 128.
#include <cmath>
#include <cstring>
#include <vector>

#include "native/quantise/half.h"
#include "native/quantise/quantise.h"

namespace moestro {
namespace {

Status invalid(const std::string& what) { return Status("INVALID_ARGUMENT", what); }

Status check_sizes(int rows, int cols, size_t bytes) {
  if (rows < 1 || cols < kGroup || cols % kGroup != 0)
    return invalid("Cannot lay out a dense matrix of " + std::to_string(rows) + " x " + std::to_string(cols) +
                   ": needed at least one row and a multiple of 32 columns");
  if (bytes != dense_bytes(rows, cols))
    return invalid("Cannot use " + std::to_string(bytes) + " bytes for a dense matrix of " + std::to_string(rows) +
                   " x " + std::to_string(cols) + ": needed " + std::to_string(dense_bytes(rows, cols)));
  return {};
}

size_t tile_count(int rows, int cols) {
  return static_cast<size_t>((rows + kTileRows - 1) / kTileRows) * static_cast<size_t>(cols / kGroup);
}

// One group of 32 weights. The largest maps to 127 or just below: a scale that f16 rounded down so far that it would
// clip (possible among its subnormals) is taken one step up. False when f16 cannot hold the scale.
bool encode_group(const float* w, uint16_t* scale_bits, uint8_t* codes) {
  float maximum = 0.0f;
  for (int i = 0; i < kGroup; ++i) maximum = std::fmax(maximum, std::fabs(w[i]));
  uint16_t bits = f16_of(maximum / 127.0f);
  if (f16_value(bits) * 127.5f < maximum) ++bits;
  if (bits >= 0x7C00) return false;
  const float scale = f16_value(bits);
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  for (int i = 0; i < kGroup; ++i) {
    const float code = std::nearbyint(w[i] * inverse);
    codes[i] = static_cast<uint8_t>(128 + static_cast<int>(std::fmin(std::fmax(code, -127.0f), 127.0f)));
  }
  *scale_bits = bits;
  return true;
}

}  // namespace

size_t dense_bytes(int rows, int cols) { return tile_count(rows, cols) * (kTileWeights + 2 * kTileRows); }

Status quantise_dense(const SourceMatrix& source, int rows, int cols, uint8_t* out, size_t out_bytes) {
  const Status sizes = check_sizes(rows, cols, out_bytes);
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

  const size_t tiles = tile_count(rows, cols), tiles_across = width / kGroup;
  uint8_t* scales = out + tiles * kTileWeights;
  std::memset(out, 128, tiles * kTileWeights);
  std::memset(scales, 0, tiles * kTileRows * 2);
  std::vector<float> row(width);
  uint8_t codes[kGroup];
  for (int r = 0; r < rows; ++r) {
    const Status status =
        dequantise(source.dtype, source.data + static_cast<size_t>(r) * row_bytes, row_bytes, width, row.data());
    if (!status.ok()) return status;
    for (size_t across = 0; across < tiles_across; ++across) {
      const float* group = row.data() + across * kGroup;
      bool finite = true;
      for (int i = 0; i < kGroup; ++i) finite &= std::isfinite(group[i]);
      uint16_t scale = 0;
      if (!finite || !encode_group(group, &scale, codes))
        return Status("SOURCE_INVALID", "Cannot quantise a dense matrix: row " + std::to_string(r) +
                                            " holds a weight that is no finite number below 8.3e6");
      const size_t tile = static_cast<size_t>(r / kTileRows) * tiles_across + across;
      const int lane = r % kTileRows;
      for (int i = 0; i < kGroup; ++i) out[tile * kTileWeights + i / 4 * 64 + lane * 4 + i % 4] = codes[i];
      std::memcpy(scales + (tile * kTileRows + static_cast<size_t>(lane)) * 2, &scale, 2);
    }
  }
  return {};
}

Status dequantise_dense(const uint8_t* blocks, size_t bytes, int rows, int cols, float* out) {
  const Status sizes = check_sizes(rows, cols, bytes);
  if (!sizes.ok()) return sizes;
  const size_t tiles = tile_count(rows, cols), tiles_across = static_cast<size_t>(cols) / kGroup;
  const uint8_t* scales = blocks + tiles * kTileWeights;
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) {
      const size_t tile = static_cast<size_t>(r / kTileRows) * tiles_across + static_cast<size_t>(c / kGroup);
      const int lane = r % kTileRows, i = c % kGroup;
      uint16_t scale;
      std::memcpy(&scale, scales + (tile * kTileRows + static_cast<size_t>(lane)) * 2, 2);
      const int code = blocks[tile * kTileWeights + i / 4 * 64 + lane * 4 + i % 4];
      out[static_cast<size_t>(r) * static_cast<size_t>(cols) + static_cast<size_t>(c)] =
          f16_value(scale) * static_cast<float>(code - 128);
    }
  }
  return {};
}

}  // namespace moestro
