// Source weights to float32. The block layouts are those of ggml (the ggml/gguf documents, MIT): a block is a few
// f16 scales and packed integers. Multi-byte fields are little-endian; nothing here assumes alignment.
#include <cstring>

#include "native/quantise/half.h"
#include "native/quantise/quantise.h"

namespace moestro {
namespace {

uint16_t load16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
uint32_t load32(const uint8_t* p) { return load16(p) | static_cast<uint32_t>(load16(p + 2)) << 16; }
float load_half(const uint8_t* p) { return f16_value(load16(p)); }

void decode_f32(const uint8_t* block, float* out) { *out = float_of_bits(load32(block)); }
void decode_f16(const uint8_t* block, float* out) { *out = load_half(block); }
void decode_bf16(const uint8_t* block, float* out) { *out = bf16_value(load16(block)); }

// f16 d, int8 [32].
void decode_q8_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<int8_t>(block[2 + i]);
}

// Blocks of 32 with 4-bit codes: element i in the low nibble of byte i, element i + 16 in the high nibble.
// f16 d, [16]: d * (q - 8).
void decode_q4_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * ((block[2 + i] & 15) - 8);
    out[i + 16] = d * ((block[2 + i] >> 4) - 8);
  }
}

// f16 d, f16 m, [16]: d * q + m.
void decode_q4_1(const uint8_t* block, float* out) {
  const float d = load_half(block), m = load_half(block + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * (block[4 + i] & 15) + m;
    out[i + 16] = d * (block[4 + i] >> 4) + m;
  }
}

// The same with a fifth bit: bit i of a u32 belongs to element i. f16 d, u32, [16]: d * (q - 16).
void decode_q5_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const uint32_t high = load32(block + 2);
  for (int i = 0; i < 16; ++i) {
    const int low = (block[6 + i] & 15) | static_cast<int>(high >> i & 1) << 4;
    const int up = block[6 + i] >> 4 | static_cast<int>(high >> (i + 16) & 1) << 4;
    out[i] = d * (low - 16);
    out[i + 16] = d * (up - 16);
  }
}

void decode_q5_1(const uint8_t* block, float* out) {
  const float d = load_half(block), m = load_half(block + 2);
  const uint32_t high = load32(block + 4);
  for (int i = 0; i < 16; ++i) {
    const int low = (block[8 + i] & 15) | static_cast<int>(high >> i & 1) << 4;
    const int up = block[8 + i] >> 4 | static_cast<int>(high >> (i + 16) & 1) << 4;
    out[i] = d * low + m;
    out[i + 16] = d * up + m;
  }
}

// K-quants: super-blocks of 256 in two halves of 128; the 2-bit fields of 32 bytes serve four runs of 32 elements.
// [16] of (scale | min << 4) for runs of 16, [64] 2-bit codes, f16 d, f16 dmin: d * scale * q - dmin * min.
void decode_q2_k(const uint8_t* block, float* out) {
  const uint8_t* codes = block + 16;
  const float d = load_half(block + 80), dmin = load_half(block + 82);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, run = i % 128 / 32;
    const int q = codes[half * 32 + i % 32] >> 2 * run & 3;
    const int sub = block[i / 16];
    out[i] = d * (sub & 15) * q - dmin * (sub >> 4);
  }
}

// [32] high bits (bit half * 4 + run of byte i % 32), [64] 2-bit codes, [12] sixteen 6-bit scales, f16 d:
// d * (scale - 32) * (q - 4 where the high bit is clear).
void decode_q3_k(const uint8_t* block, float* out) {
  const uint8_t* codes = block + 32;
  const uint8_t* packed = block + 96;
  const float d = load_half(block + 108);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, run = i % 128 / 32, group = i / 16;
    const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
    const int scale = (low | (packed[8 + group % 4] >> 2 * (group / 4) & 3) << 4) - 32;
    const int high = block[i % 32] >> (half * 4 + run) & 1;
    const int q = (codes[half * 32 + i % 32] >> 2 * run & 3) - (high ? 0 : 4);
    out[i] = d * scale * q;
  }
}

// Eight 6-bit scales and eight 6-bit minima in 12 bytes: the first four of each whole in bytes 0..3 and 4..7, whose
// top two bits complete the nibbles of bytes 8..11 to the other four.
void unpack_scale_min(const uint8_t* packed, int group, int* scale, int* min) {
  if (group < 4) {
    *scale = packed[group] & 63;
    *min = packed[group + 4] & 63;
  } else {
    *scale = (packed[group + 4] & 15) | packed[group - 4] >> 6 << 4;
    *min = packed[group + 4] >> 4 | packed[group] >> 6 << 4;
  }
}

// f16 d, f16 dmin, [12] scales and minima of runs of 32, [128] 4-bit codes: two runs share 32 bytes.
void decode_q4_k(const uint8_t* block, float* out) {
  const float d = load_half(block), dmin = load_half(block + 2);
  for (int group = 0; group < 8; ++group) {
    int scale, min;
    unpack_scale_min(block + 4, group, &scale, &min);
    const float step = d * scale, base = dmin * min;
    const uint8_t* codes = block + 16 + group / 2 * 32;
    for (int i = 0; i < 32; ++i) out[group * 32 + i] = step * (codes[i] >> group % 2 * 4 & 15) - base;
  }
}

// The same with [32] fifth bits before the codes: bit `group` of byte i.
void decode_q5_k(const uint8_t* block, float* out) {
  const float d = load_half(block), dmin = load_half(block + 2);
  const uint8_t* high = block + 16;
  for (int group = 0; group < 8; ++group) {
    int scale, min;
    unpack_scale_min(block + 4, group, &scale, &min);
    const float step = d * scale, base = dmin * min;
    const uint8_t* codes = block + 48 + group / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int q = (codes[i] >> group % 2 * 4 & 15) | (high[i] >> group & 1) << 4;
      out[group * 32 + i] = step * q - base;
    }
  }
}

// [128] low nibbles, [64] high 2-bit fields, int8 [16] scales of runs of 16, f16 d: d * scale * (q - 32). In each
// half, runs 0 and 1 take the low nibbles of 64 bytes and runs 2 and 3 the high ones.
void decode_q6_k(const uint8_t* block, float* out) {
  const float d = load_half(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, run = i % 128 / 32, j = i % 32;
    const int low = block[half * 64 + run % 2 * 32 + j] >> run / 2 * 4 & 15;
    const int high = block[128 + half * 32 + j] >> 2 * run & 3;
    out[i] = d * static_cast<int8_t>(block[192 + i / 16]) * ((low | high << 4) - 32);
  }
}

struct SourceFormat {
  const char* name;
  size_t elements, bytes;
  void (*decode)(const uint8_t* block, float* out);
};

constexpr SourceFormat kFormats[] = {
    {"F32", 1, 4, decode_f32},       {"F16", 1, 2, decode_f16},       {"BF16", 1, 2, decode_bf16},
    {"Q8_0", 32, 34, decode_q8_0},   {"Q4_0", 32, 18, decode_q4_0},   {"Q4_1", 32, 20, decode_q4_1},
    {"Q5_0", 32, 22, decode_q5_0},   {"Q5_1", 32, 24, decode_q5_1},   {"Q2_K", 256, 84, decode_q2_k},
    {"Q3_K", 256, 110, decode_q3_k}, {"Q4_K", 256, 144, decode_q4_k}, {"Q5_K", 256, 176, decode_q5_k},
    {"Q6_K", 256, 210, decode_q6_k},
};

const SourceFormat* find_format(const std::string& dtype) {
  for (const SourceFormat& format : kFormats)
    if (dtype == format.name) return &format;
  return nullptr;
}

}  // namespace

bool source_block(const std::string& dtype, size_t* elements, size_t* bytes) {
  const SourceFormat* format = find_format(dtype);
  if (format == nullptr) return false;
  *elements = format->elements;
  *bytes = format->bytes;
  return true;
}

Status dequantise(const std::string& dtype, const uint8_t* data, size_t bytes, size_t count, float* out) {
  const SourceFormat* format = find_format(dtype);
  if (format == nullptr) return Status("UNSUPPORTED_DTYPE", "Cannot dequantise weights: dtype \"" + dtype + "\"");
  if (count % format->elements != 0) {
    return Status("INVALID_ARGUMENT", "Cannot dequantise " + std::to_string(count) + " weights of " + dtype +
                                          ": needed a multiple of " + std::to_string(format->elements));
  }
  const size_t blocks = count / format->elements;
  // Divided rather than multiplied: an absurd count must not wrap.
  if (bytes % format->bytes != 0 || bytes / format->bytes != blocks) {
    return Status("INVALID_ARGUMENT", "Cannot dequantise " + std::to_string(count) + " weights of " + dtype + ": got " +
                                          std::to_string(bytes) + " bytes, needed " + std::to_string(blocks) +
                                          " blocks of " + std::to_string(format->bytes));
  }
  for (size_t i = 0; i < blocks; ++i) format->decode(data + i * format->bytes, out + i * format->elements);
  return {};
}

}  // namespace moestro
