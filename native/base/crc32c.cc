// CRC-32C by the SSE4.2 instruction, or by eight tables where it is missing.
//
// The instruction takes 8 bytes a cycle but answers after three, so three blocks are summed side by side and joined:
// crc(A then B) = shift(crc(A), length of B) ^ crc(B), where shift() appends zero bytes. For a fixed length shift()
// is linear over GF(2), so it is four table look-ups. Source of the joining rule: zlib's crc32_combine, by M. Adler;
// of the tables by eight: Kounavis and Berry, "A systematic approach to building high performance CRC generators".
#include "native/base/crc32c.h"

#include <array>
#include <cstring>
#include <iterator>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace moestro {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;

// Table k holds, per byte value, the remainder of that byte followed by k zero bytes.
using SliceTables = std::array<std::array<uint32_t, 256>, 8>;

const SliceTables& slice_tables() {
  static const SliceTables tables = [] {
    SliceTables made{};
    for (uint32_t value = 0; value < 256; ++value) {
      uint32_t crc = value;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? kPolynomial : 0);
      made[0][value] = crc;
    }
    for (uint32_t value = 0; value < 256; ++value) {
      for (size_t k = 1; k < made.size(); ++k) {
        const uint32_t before = made[k - 1][value];
        made[k][value] = (before >> 8) ^ made[0][before & 0xff];
      }
    }
    return made;
  }();
  return tables;
}

uint64_t load_u64(const uint8_t* p) {
  uint64_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

#if defined(__x86_64__)

// Long blocks keep three long streams on their way from memory: 22 GB/s cold where blocks of 8 KiB gave 15 (Zen 5).
// Shorter ones serve what is left of a buffer that is no multiple of them. All are powers of two.
constexpr size_t kBlocks[] = {65536, 8192, 256};
constexpr size_t kLine = 64;
constexpr size_t kAhead = 2048;

// Appends a fixed number of zero bytes, a power of two, to a raw remainder; table i is indexed by byte i of it.
struct ZeroShift {
  std::array<std::array<uint32_t, 256>, 4> table{};

  explicit ZeroShift(size_t zero_bytes) {
    const auto& slices = slice_tables();
    std::array<uint32_t, 32> column;  // where each single bit of the remainder ends up
    for (int bit = 0; bit < 32; ++bit) column[bit] = ((1u << bit) >> 8) ^ slices[0][(1u << bit) & 0xff];
    make_table(column);
    for (; zero_bytes > 1; zero_bytes /= 2) {
      for (uint32_t& moved : column) moved = (*this)(moved);
      make_table(column);
    }
  }

  void make_table(const std::array<uint32_t, 32>& column) {
    for (int byte = 0; byte < 4; ++byte) {
      for (int value = 0; value < 256; ++value) {
        uint32_t sum = 0;
        for (int bit = 0; bit < 8; ++bit) {
          if (value >> bit & 1) sum ^= column[byte * 8 + bit];
        }
        table[byte][value] = sum;
      }
    }
  }

  uint32_t operator()(uint32_t crc) const {
    return table[0][crc & 0xff] ^ table[1][crc >> 8 & 0xff] ^ table[2][crc >> 16 & 0xff] ^ table[3][crc >> 24];
  }
};

__attribute__((target("sse4.2"))) const uint8_t* sum_triples(uint32_t* crc, const uint8_t* p, size_t* bytes,
                                                             size_t block, const ZeroShift& shift) {
  while (*bytes >= 3 * block) {
    uint64_t a = *crc, b = 0, c = 0;
    for (const uint8_t* end = p + block; p < end; p += kLine) {
      // Each part runs on into the next one, the last into the triple to come.
      __builtin_prefetch(p + kAhead);
      __builtin_prefetch(p + block + kAhead);
      __builtin_prefetch(p + 2 * block + kAhead);
#pragma GCC unroll 8
      for (size_t i = 0; i < kLine; i += 8) {
        a = _mm_crc32_u64(a, load_u64(p + i));
        b = _mm_crc32_u64(b, load_u64(p + block + i));
        c = _mm_crc32_u64(c, load_u64(p + 2 * block + i));
      }
    }
    const uint32_t ab = shift(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b);
    *crc = shift(ab) ^ static_cast<uint32_t>(c);
    p += 2 * block;
    *bytes -= 3 * block;
  }
  return p;
}

__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(uint32_t crc, const void* data, size_t bytes) {
  static const ZeroShift shifts[] = {ZeroShift(kBlocks[0]), ZeroShift(kBlocks[1]), ZeroShift(kBlocks[2])};
  const uint8_t* p = static_cast<const uint8_t*>(data);
  crc = ~crc;
  for (size_t i = 0; i < std::size(kBlocks); ++i) p = sum_triples(&crc, p, &bytes, kBlocks[i], shifts[i]);
  uint64_t wide = crc;
  for (; bytes >= 8; bytes -= 8, p += 8) wide = _mm_crc32_u64(wide, load_u64(p));
  crc = static_cast<uint32_t>(wide);
  for (; bytes > 0; --bytes, ++p) crc = _mm_crc32_u8(crc, *p);
  return ~crc;
}

#endif

}  // namespace

uint32_t crc32c_table(uint32_t crc, const void* data, size_t bytes) {
  const SliceTables& t = slice_tables();
  const uint8_t* p = static_cast<const uint8_t*>(data);
  crc = ~crc;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    // Byte by byte, so that the result is the same on a big-endian machine.
    const uint32_t low = crc ^ (p[0] | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16 | uint32_t{p[3]} << 24);
    crc = t[7][low & 0xff] ^ t[6][low >> 8 & 0xff] ^ t[5][low >> 16 & 0xff] ^ t[4][low >> 24] ^ t[3][p[4]] ^
          t[2][p[5]] ^ t[1][p[6]] ^ t[0][p[7]];
  }
  for (; bytes > 0; --bytes, ++p) crc = (crc >> 8) ^ t[0][(crc ^ *p) & 0xff];
  return ~crc;
}

bool crc32c_has_instruction() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("sse4.2");
  return has;
#else
  return false;
#endif
}

uint32_t crc32c(uint32_t crc, const void* data, size_t bytes) {
#if defined(__x86_64__)
  if (crc32c_has_instruction()) return crc32c_sse42(crc, data, bytes);
#endif
  return crc32c_table(crc, data, bytes);
}

}  // namespace moestro
