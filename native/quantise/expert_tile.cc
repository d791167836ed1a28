#include "native/quantise/expert_tile.h"

#include <cstring>

#include "native/quantise/half.h"
#include "native/quantise/lanes.h"

namespace moestro {
namespace {

// Errors of the rows of one tile. Rows are added up in one order whatever the vector width.
struct LaneErrors {
  alignas(64) float level[4][kTileRows];
  alignas(64) float energy[kTileRows];
};

#define MOESTRO_INLINE inline __attribute__((always_inline))

template <int kLanes>
struct Encoder : Lanes<kLanes> {
  using Base = Lanes<kLanes>;
  using Base::first_candidate;
  using Base::grid_value;
  using Base::larger;
  using Base::load;
  using Base::smaller;
  using Base::splat;
  using typename Base::Floats;
  using typename Base::Ints;

  // Cost of the candidate `scale` (signed) for each row, less the constant part, in units of weight^2.
  static MOESTRO_INLINE Floats scale_cost(const TileCodebook& book, const float (*w)[kTileRows],
                                          const float* importance, const Floats& scale) {
    const Floats inverse = 1.0f / scale;
    Floats sum = {};
    for (int column = 0; column < kGroup; column += 2) {
      const Floats x0 = load(w[column]) * inverse;
      const Floats x1 = load(w[column + 1]) * inverse;
      Floats best0 = book.line_offset[0] - x0 * book.line_slope[0];
      Floats best1 = book.line_offset[0] - x1 * book.line_slope[0];
      for (int c = 1; c < 16; ++c) {
        best0 = smaller(best0, book.line_offset[c] - x0 * book.line_slope[c]);
        best1 = smaller(best1, book.line_offset[c] - x1 * book.line_slope[c]);
      }
      const Floats over0 = larger(larger(x0 - book.reach_high, book.reach_low - x0), Floats{});
      const Floats over1 = larger(larger(x1 - book.reach_high, book.reach_low - x1), Floats{});
      best0 += over0 * over0 * book.weight8;
      best1 += over1 * over1 * book.weight8;
      sum += best0 * importance[column];
      sum += best1 * importance[column + 1];
    }
    return sum * scale * scale;
  }

  // Both signs of every candidate; the first of equal costs wins.
  static MOESTRO_INLINE void search_scale(const TileCodebook& book, const float (*w)[kTileRows],
                                          const float* importance, const Floats& row_scale, Ints* best_index,
                                          Ints* best_sign) {
    Floats maximum = {};
    for (int column = 0; column < kGroup; ++column) {
      const Floats v = load(w[column]);
      maximum = larger(maximum, larger(v, -v));
    }
    const Ints first = first_candidate(maximum, row_scale);
    *best_index = first;
    *best_sign = Ints{};
    Floats best = splat(3.4e38f);
    for (int step = 0; step < kCandidates; ++step) {
      const Ints index = first + step;
      const Floats scale = row_scale * grid_value(index);
      for (int sign = 0; sign < 2; ++sign) {
        const Floats cost = scale_cost(book, w, importance, sign ? -scale : scale);
        const Ints wins = cost < best;
        best = wins ? cost : best;
        *best_index = wins ? index : *best_index;
        *best_sign = wins ? Ints{} + sign : *best_sign;
      }
    }
  }

  // The rows [row0, row0 + kLanes): `w` and `row_scale` are already advanced to row0.
  static MOESTRO_INLINE void encode_rows(const TileCodebook& book, const float (*w)[kTileRows], const float* importance,
                                         const float* row_scale, int row0, TileCodes* out, LaneErrors* errors) {
    // A row of zeros has row scale 0; 1 stands in for it so that nothing is divided by zero. Its error is 0 either way.
    const Floats given = load(row_scale);
    const Floats rows = given > 0.0f ? given : splat(1.0f);
    Ints index, sign;
    search_scale(book, w, importance, rows, &index, &sign);
    const Floats magnitude = rows * grid_value(index);
    const Floats scale = sign != 0 ? -magnitude : magnitude;
    const Floats inverse = 1.0f / scale;
    for (int lane = 0; lane < kLanes; ++lane)
      out->scale[row0 + lane] = static_cast<uint8_t>((given[lane] > 0.0f ? index[lane] : 0) | sign[lane] << 7);

    Floats error2 = {}, error3 = {}, error4 = {}, error8 = {}, energy = {};
    for (int column = 0; column < kGroup; ++column) {
      const Floats weight = load(w[column]);
      const Floats x = weight * inverse;
      Floats best = splat(3.4e38f), best2 = {}, best3 = {}, best4 = {}, best8 = {};
      Ints code = {}, residual = {};
      for (int c = 0; c < 16; ++c) {
        const Floats d2 = x - book.value2[c], d3 = x - book.value3[c], d4 = x - book.value4[c];
        Floats cost = d2 * d2 * book.weight2 + d3 * d3 * book.weight3 + d4 * d4 * book.weight4;
        // The residual nearest to 2 d4, clipped to its 4 bits; at least 0, so truncation rounds down.
        Floats steps = (2.0f * d4 - book.residual_offset) * (1.0f / book.residual_step) + 0.5f;
        steps = smaller(larger(steps, Floats{}), splat(15.5f));
        const Ints r = __builtin_convertvector(steps, Ints);
        const Floats d8 = d4 - 0.5f * (book.residual_step * __builtin_convertvector(r, Floats) + book.residual_offset);
        cost += d8 * d8 * book.weight8;
        const Ints wins = cost < best;
        best = wins ? cost : best;
        best2 = wins ? d2 : best2;
        best3 = wins ? d3 : best3;
        best4 = wins ? d4 : best4;
        best8 = wins ? d8 : best8;
        code = wins ? Ints{} + c : code;
        residual = wins ? r : residual;
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        out->code[column][row0 + lane] = static_cast<uint8_t>(code[lane]);
        out->residual[column][row0 + lane] = static_cast<uint8_t>(residual[lane]);
      }
      const Floats units = given > 0.0f ? scale * scale * importance[column] : Floats{};
      error2 += best2 * best2 * units;
      error3 += best3 * best3 * units;
      error4 += best4 * best4 * units;
      error8 += best8 * best8 * units;
      energy += weight * weight * importance[column];
    }
    std::memcpy(&errors->level[0][row0], &error2, sizeof error2);
    std::memcpy(&errors->level[1][row0], &error3, sizeof error3);
    std::memcpy(&errors->level[2][row0], &error4, sizeof error4);
    std::memcpy(&errors->level[3][row0], book.weight8 > 0.0f ? &error8 : &error4, sizeof error8);
    std::memcpy(&errors->energy[row0], &energy, sizeof energy);
  }

  static MOESTRO_INLINE void encode(const TileCodebook& book, const float (*w)[kTileRows], const float* importance,
                                    const float* row_scale, TileCodes* out, LaneErrors* errors) {
    for (int row0 = 0; row0 < kTileRows; row0 += kLanes) {
      // Rows are adjacent floats, so the view that starts at row0 keeps its stride.
      const auto* rows = reinterpret_cast<const float(*)[kTileRows]>(&w[0][row0]);
      encode_rows(book, rows, importance, row_scale + row0, row0, out, errors);
    }
  }
};

using EncodeTile = void (*)(const TileCodebook&, const float (*)[kTileRows], const float*, const float*, TileCodes*,
                            LaneErrors*);

void encode_baseline(const TileCodebook& book, const float (*w)[kTileRows], const float* importance,
                     const float* row_scale, TileCodes* out, LaneErrors* errors) {
  Encoder<4>::encode(book, w, importance, row_scale, out, errors);
}

#ifdef MOESTRO_X86
MOESTRO_TARGET_AVX2 void encode_avx2(const TileCodebook& book, const float (*w)[kTileRows], const float* importance,
                                     const float* row_scale, TileCodes* out, LaneErrors* errors) {
  Encoder<8>::encode(book, w, importance, row_scale, out, errors);
}

MOESTRO_TARGET_AVX512 void encode_avx512(const TileCodebook& book, const float (*w)[kTileRows], const float* importance,
                                         const float* row_scale, TileCodes* out, LaneErrors* errors) {
  Encoder<16>::encode(book, w, importance, row_scale, out, errors);
}
#endif

EncodeTile choose_encoder() {
#ifdef MOESTRO_X86
  return widest_of(encode_baseline, encode_avx2, encode_avx512);
#else
  return encode_baseline;
#endif
}

}  // namespace

TileCodebook make_codebook(const PlaneTables& tables, bool residual, int only_level) {
  TileCodebook book{};
  // Each level weighs by the inverse of its usual relative error on Gaussian weights (10.4, 2.4 and 0.56 %), so that
  // none is bought at another's cost. Level 8 only has to keep its residual in reach.
  const auto weight = [&](int level, float error) {
    return only_level == 0 || only_level == level ? 1.0f / error : 0.0f;
  };
  book.weight2 = weight(2, 10.4f);
  book.weight3 = weight(3, 2.4f);
  book.weight4 = weight(4, 0.56f);
  book.weight8 = residual ? 8.0f : 0.0f;
  for (int c = 0; c < 16; ++c) {
    const float v2 = static_cast<float>(tables.t2[c >> 2] - 128);
    const float v3 = static_cast<float>(tables.t3[c >> 1] - 128);
    const float v4 = static_cast<float>(tables.t4[c] - 128);
    book.value2[c] = v2;
    book.value3[c] = v3;
    book.value4[c] = v4;
    book.line_slope[c] = 2.0f * (book.weight2 * v2 + book.weight3 * v3 + book.weight4 * v4);
    book.line_offset[c] = book.weight2 * v2 * v2 + book.weight3 * v3 * v3 + book.weight4 * v4 * v4;
  }
  book.residual_step = static_cast<float>(tables.residual_step);
  book.residual_offset = static_cast<float>(tables.residual_offset);
  book.reach_low = book.value4[0] + 0.5f * book.residual_offset;
  book.reach_high = book.value4[0] + 0.5f * book.residual_offset;
  for (int c = 0; c < 16; ++c) {
    const float low = book.value4[c] + 0.5f * book.residual_offset;
    const float high = low + 7.5f * book.residual_step;
    if (low < book.reach_low) book.reach_low = low;
    if (high > book.reach_high) book.reach_high = high;
  }
  return book;
}

void encode_tile(const TileCodebook& book, const float (*w)[kTileRows], const float* importance, const float* row_scale,
                 TileCodes* out, TileErrors* errors) {
  static const EncodeTile encode = choose_encoder();
  LaneErrors lanes;
  encode(book, w, importance, row_scale, out, &lanes);
  for (int row = 0; row < kTileRows; ++row) {
    for (int level = 0; level < 4; ++level) errors->level[level] += static_cast<double>(lanes.level[level][row]);
    errors->energy += static_cast<double>(lanes.energy[row]);
  }
}

uint16_t row_scale_for(float row_maximum) {
  const float scale = row_maximum / (kGridTop * kPlaceLow);
  // Below this a weight divided by its scale could overflow: such a row is zero for all that follows.
  if (!(scale > 1e-34f)) return 0;
  return bf16_of(scale);
}

float group_scale_value(uint8_t scale) {
  const float magnitude = float_of_bits(static_cast<uint32_t>((scale & 127) + kGridBias) << 19);
  return scale & 128 ? -magnitude : magnitude;
}

void pack_tile(const TileCodes& codes, uint8_t* const slots[8], int64_t tile) {
  for (int slot = 0; slot < (slots[4] == nullptr ? 4 : 8); ++slot)
    std::memset(slots[slot] + tile * kBitTileBytes, 0, kBitTileBytes);
  for (int column = 0; column < kGroup; ++column) {
    const int step = column / 4;
    for (int row = 0; row < kTileRows; ++row) {
      const int byte = row * 4 + column % 4;
      const int code = codes.code[column][row];
      const int64_t at = tile * kBitTileBytes;
      slots[step / 4][at + byte] |= static_cast<uint8_t>((code >> 2) << 2 * (step % 4));
      slots[2][at + step * 8 + byte / 8] |= static_cast<uint8_t>((code >> 1 & 1) << byte % 8);
      slots[3][at + step * 8 + byte / 8] |= static_cast<uint8_t>((code & 1) << byte % 8);
      if (slots[4] != nullptr)
        slots[4 + step / 2][at + byte] |= static_cast<uint8_t>(codes.residual[column][row] << 4 * (step % 2));
    }
  }
}

void unpack_tile(const uint8_t* const slots[8], int64_t tile, TileCodes* out) {
  const int64_t at = tile * kBitTileBytes;
  for (int column = 0; column < kGroup; ++column) {
    const int step = column / 4;
    for (int row = 0; row < kTileRows; ++row) {
      const int byte = row * 4 + column % 4;
      int code = (slots[step / 4][at + byte] >> 2 * (step % 4) & 3) << 2;
      if (slots[2] != nullptr) code |= (slots[2][at + step * 8 + byte / 8] >> byte % 8 & 1) << 1;
      if (slots[3] != nullptr) code |= slots[3][at + step * 8 + byte / 8] >> byte % 8 & 1;
      out->code[column][row] = static_cast<uint8_t>(code);
      if (slots[4] != nullptr)
        out->residual[column][row] = static_cast<uint8_t>(slots[4 + step / 2][at + byte] >> 4 * (step % 2) & 15);
    }
  }
}

}  // namespace moestro
