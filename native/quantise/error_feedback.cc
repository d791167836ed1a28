#include "native/quantise/error_feedback.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "native/quantise/lanes.h"

#define MOESTRO_INLINE inline __attribute__((always_inline))

namespace moestro {
namespace {

// Share of the mean diagonal that is added to every diagonal entry: inputs that the calibration text did not show.
constexpr float kDamping = 0.01f;
// Rounds of coordinate descent; each lowers the error less than the one before, and the fifth by under 1 %.
constexpr int kRounds = 5;
constexpr int kLevels = 4;  // 2, 3, 4, 8

// Row j holds U[j][k], k > j, of C = (U + I) D (U + I)^T: from the last column to the first.
std::vector<float> hand_on_factors(const std::vector<float>& covariance, size_t n) {
  std::vector<double> u(n * n, 0.0), d(n, 0.0);
  for (size_t j = n; j-- > 0;) {
    double pivot = covariance[j * n + j];
    for (size_t k = j + 1; k < n; ++k) pivot -= u[j * n + k] * u[j * n + k] * d[k];
    d[j] = std::max(pivot, 1e-6);  // rounding only: damping keeps the exact value above
    for (size_t i = 0; i < j; ++i) {
      double sum = covariance[i * n + j];
      for (size_t k = j + 1; k < n; ++k) sum -= u[i * n + k] * u[j * n + k] * d[k];
      u[i * n + j] = sum / d[j];
    }
  }
  return std::vector<float>(u.begin(), u.end());
}

// A strip at work: per column 16 floats, and per level as many columns.
struct Strip {
  Strip(FeedbackScratch* scratch, int columns) : floats(static_cast<size_t>(columns) * kTileRows) {
    float* at = scratch->values.data();
    for (float*& p : target) at = take(&p, at);
    for (float*& p : value) at = take(&p, at);
    for (float*& p : gradient) at = take(&p, at);
    scale = at;  // [columns / 32][16], signed, row scale included
  }
  float* take(float** p, float* at) const {
    *p = at;
    return at + floats;
  }
  size_t floats;
  float *target[kLevels], *value[kLevels], *gradient[kLevels], *scale;
};

template <int kLanes>
struct Feedback : Lanes<kLanes> {
  using Base = Lanes<kLanes>;
  using Base::first_candidate;
  using Base::grid_value;
  using Base::larger;
  using Base::load;
  using Base::smaller;
  using Base::splat;
  using Base::store;
  using typename Base::Floats;
  using typename Base::Ints;

  struct Choice {
    Ints code, residual;
    Floats value[kLevels];
  };

  // The code of the least cost for targets x [4] in units of the scale.
  static MOESTRO_INLINE Choice choose(const TileCodebook& book, const Floats* x) {
    Choice best{};
    Floats least = splat(3.4e38f);
    const float residual_end = book.residual_offset * 0.5f;
    for (int c = 0; c < 16; ++c) {
      const Floats v2 = splat(book.value2[c]), v3 = splat(book.value3[c]), v4 = splat(book.value4[c]);
      const Floats d2 = x[0] - v2, d3 = x[1] - v3, d4 = x[2] - v4;
      Floats cost = d2 * d2 * book.weight2 + d3 * d3 * book.weight3 + d4 * d4 * book.weight4;
      Floats v8 = v4;
      Ints r = {};
      if (book.weight8 > 0.0f) {
        // The residual nearest to 2 (x - v4), clipped to its 4 bits; at least 0, so truncation rounds down.
        Floats steps = (2.0f * (x[3] - v4) - book.residual_offset) * (1.0f / book.residual_step) + 0.5f;
        steps = smaller(larger(steps, Floats{}), splat(15.5f));
        r = __builtin_convertvector(steps, Ints);
        v8 = v4 + residual_end + (0.5f * book.residual_step) * __builtin_convertvector(r, Floats);
        const Floats d8 = x[3] - v8;
        cost += d8 * d8 * book.weight8;
      }
      const Ints wins = cost < least;
      least = wins ? cost : least;
      best.code = wins ? Ints{} + c : best.code;
      best.residual = wins ? r : best.residual;
      best.value[0] = wins ? v2 : best.value[0];
      best.value[1] = wins ? v3 : best.value[1];
      best.value[2] = wins ? v4 : best.value[2];
      best.value[3] = wins ? v8 : best.value[3];
    }
    return best;
  }

  // The scale of a group whose targets start at column `first`: as in expert_tile.cc, with a target for every level.
  static MOESTRO_INLINE Floats search_scale(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                                            int first, int row0, const Floats& row_scale, Ints* index, Ints* negative) {
    Floats maximum = {};
    for (int column = first; column < first + kGroup; ++column) {
      const Floats v = load(strip.target[2] + column * kTileRows + row0);
      maximum = larger(maximum, larger(v, -v));
    }
    const Ints start = first_candidate(maximum, row_scale);
    Floats least = splat(3.4e38f), scale = row_scale * grid_value(start);
    *index = start;
    *negative = Ints{};
    for (int step = 0; step < kCandidates; ++step) {
      const Ints candidate = start + step;
      const Floats magnitude = row_scale * grid_value(candidate);
      for (int sign = 0; sign < 2; ++sign) {
        const Floats s = sign ? -magnitude : magnitude;
        const Floats inverse = 1.0f / s;
        Floats sum = {};
        for (int column = first; column < first + kGroup; ++column) {
          const size_t at = static_cast<size_t>(column) * kTileRows + row0;
          const Floats x2 = load(strip.target[0] + at) * inverse, x3 = load(strip.target[1] + at) * inverse,
                       x4 = load(strip.target[2] + at) * inverse;
          Floats best = splat(3.4e38f);
          for (int c = 0; c < 16; ++c) {
            const Floats d2 = x2 - book.value2[c], d3 = x3 - book.value3[c], d4 = x4 - book.value4[c];
            best = smaller(best, d2 * d2 * book.weight2 + d3 * d3 * book.weight3 + d4 * d4 * book.weight4);
          }
          if (book.weight8 > 0.0f) {
            const Floats x8 = load(strip.target[3] + at) * inverse;
            const Floats over = larger(larger(x8 - book.reach_high, book.reach_low - x8), Floats{});
            best += over * over * book.weight8;
          }
          sum += best * block.covariance[static_cast<size_t>(column) * block.columns + column];
        }
        sum = sum * s * s;
        const Ints wins = sum < least;
        least = wins ? sum : least;
        scale = wins ? s : scale;
        *index = wins ? candidate : *index;
        *negative = wins ? Ints{} + sign : *negative;
      }
    }
    return scale;
  }

  static MOESTRO_INLINE void keep(const Choice& choice, TileCodes* tiles, int column, int row0) {
    TileCodes& tile = tiles[column / kGroup];
    for (int lane = 0; lane < kLanes; ++lane) {
      tile.code[column % kGroup][row0 + lane] = static_cast<uint8_t>(choice.code[lane]);
      tile.residual[column % kGroup][row0 + lane] = static_cast<uint8_t>(choice.residual[lane]);
    }
  }

  // to[k] += amount * factors[k] for columns k in [first, columns).
  static MOESTRO_INLINE void hand_on(float* to, const Floats& amount, const float* factors, int first, int columns,
                                     int row0) {
    for (int k = first; k < columns; ++k) {
      float* at = to + static_cast<size_t>(k) * kTileRows + row0;
      store(at, load(at) + amount * factors[k]);
    }
  }

  static MOESTRO_INLINE void code_in_order(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                                           const float (*w)[kTileRows], const float* row_scale, int row0,
                                           TileCodes* tiles) {
    const int n = block.columns;
    const Floats given = load(row_scale + row0);
    const Floats rows = given > 0.0f ? given : splat(1.0f);  // a row of zeros: nothing is divided by zero
    for (int column = 0; column < n; ++column)
      for (float* target : strip.target)
        store(target + static_cast<size_t>(column) * kTileRows + row0, load(&w[column][row0]));
    for (int column = 0; column < n; ++column) {
      float* scale_at = strip.scale + column / kGroup * kTileRows + row0;
      if (column % kGroup == 0) {
        Ints index, negative;
        store(scale_at, search_scale(book, block, strip, column, row0, rows, &index, &negative));
        for (int lane = 0; lane < kLanes; ++lane)
          tiles[column / kGroup].scale[row0 + lane] =
              static_cast<uint8_t>((given[lane] > 0.0f ? index[lane] : 0) | negative[lane] << 7);
      }
      const Floats scale = load(scale_at), inverse = 1.0f / scale;
      const size_t at = static_cast<size_t>(column) * kTileRows + row0;
      Floats x[kLevels];
      for (int l = 0; l < kLevels; ++l) x[l] = load(strip.target[l] + at) * inverse;
      const Choice choice = choose(book, x);
      keep(choice, tiles, column, row0);
      const float* factors = block.hand_on.data() + static_cast<size_t>(column) * n;
      for (int l = 0; l < kLevels; ++l) {
        const Floats value = choice.value[l] * scale;
        store(strip.value[l] + at, value);
        hand_on(strip.target[l], load(&w[column][row0]) - value, factors, column + 1, n, row0);
      }
    }
  }

  // Coordinate descent: with the gradient g = C (q - w), the best value of one weight is q - g / C[j][j].
  static MOESTRO_INLINE void code_again(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                                        const float (*w)[kTileRows], int row0, TileCodes* tiles) {
    const int n = block.columns;
    for (float* gradient : strip.gradient)
      for (int column = 0; column < n; ++column)
        store(gradient + static_cast<size_t>(column) * kTileRows + row0, Floats{});
    for (int column = 0; column < n; ++column) {
      const size_t at = static_cast<size_t>(column) * kTileRows + row0;
      const float* row = block.covariance.data() + static_cast<size_t>(column) * n;
      for (int l = 0; l < kLevels; ++l)
        hand_on(strip.gradient[l], load(strip.value[l] + at) - load(&w[column][row0]), row, 0, n, row0);
    }
    for (int round = 0; round < kRounds; ++round) {
      for (int column = 0; column < n; ++column) {
        const size_t at = static_cast<size_t>(column) * kTileRows + row0;
        const float* row = block.covariance.data() + static_cast<size_t>(column) * n;
        const Floats scale = load(strip.scale + column / kGroup * kTileRows + row0), inverse = 1.0f / scale;
        const float step = 1.0f / row[column];
        Floats x[kLevels];
        for (int l = 0; l < kLevels; ++l)
          x[l] = (load(strip.value[l] + at) - load(strip.gradient[l] + at) * step) * inverse;
        const Choice choice = choose(book, x);
        keep(choice, tiles, column, row0);
        for (int l = 0; l < kLevels; ++l) {
          const Floats value = choice.value[l] * scale;
          hand_on(strip.gradient[l], value - load(strip.value[l] + at), row, 0, n, row0);
          store(strip.value[l] + at, value);
        }
      }
    }
  }

  static MOESTRO_INLINE void encode(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                                    const float (*w)[kTileRows], const float* row_scale, TileCodes* tiles) {
    for (int row0 = 0; row0 < kTileRows; row0 += kLanes) {
      code_in_order(book, block, strip, w, row_scale, row0, tiles);
      code_again(book, block, strip, w, row0, tiles);
    }
  }
};

using EncodeStrip = void (*)(const TileCodebook&, const FeedbackBlock&, const Strip&, const float (*)[kTileRows],
                             const float*, TileCodes*);

void encode_baseline(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                     const float (*w)[kTileRows], const float* row_scale, TileCodes* tiles) {
  Feedback<4>::encode(book, block, strip, w, row_scale, tiles);
}

#ifdef MOESTRO_X86
MOESTRO_TARGET_AVX2 void encode_avx2(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                                     const float (*w)[kTileRows], const float* row_scale, TileCodes* tiles) {
  Feedback<8>::encode(book, block, strip, w, row_scale, tiles);
}

MOESTRO_TARGET_AVX512 void encode_avx512(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                                         const float (*w)[kTileRows], const float* row_scale, TileCodes* tiles) {
  Feedback<16>::encode(book, block, strip, w, row_scale, tiles);
}
#endif

EncodeStrip choose_encoder() {
#ifdef MOESTRO_X86
  return widest_of(encode_baseline, encode_avx2, encode_avx512);
#else
  return encode_baseline;
#endif
}

Status refused(const char* name, int column, float value) {
  return Status("INVALID_ARGUMENT", std::string("Cannot use the importance of ") + name + " column " +
                                        std::to_string(column) + ": got " + std::to_string(value) +
                                        ", needed a number below 1e30, and none below 0 for a column with itself");
}

}  // namespace

Result<std::vector<FeedbackBlock>> feedback_blocks(const float* band, int cols, int width, const char* name) {
  std::vector<FeedbackBlock> blocks;
  for (int first = 0; first < cols; first += width) {
    const int columns = std::min(width, cols - first);
    const size_t n = static_cast<size_t>(columns);
    FeedbackBlock block{first, columns, std::vector<float>(n * n), {}};
    double sum = 0.0;
    for (size_t i = 0; i < n; ++i) {
      const float* row = band + (static_cast<size_t>(first) + i) * static_cast<size_t>(width);
      for (size_t k = 0; k < n; ++k) {
        if (!(std::fabs(row[k]) <= 1e30f) || (k == i && row[k] < 0.0f))
          return refused(name, first + static_cast<int>(i), row[k]);
      }
      sum += row[i];
    }
    const double mean = sum > 0.0 ? sum / static_cast<double>(n) : 1.0;
    for (size_t i = 0; i < n; ++i) {
      for (size_t k = 0; k < n; ++k) {
        // What cannot be a covariance (|C_ik| above the mean of C_ii and C_kk) is cut to one entry by entry.
        const float* band_i = band + (static_cast<size_t>(first) + i) * static_cast<size_t>(width);
        const float* band_k = band + (static_cast<size_t>(first) + k) * static_cast<size_t>(width);
        const double limit = 0.5 * (static_cast<double>(band_i[i]) + band_k[k]);
        const double both = 0.5 * (static_cast<double>(band_i[k]) + band_k[i]);
        block.covariance[i * n + k] = static_cast<float>(std::clamp(both, -limit, limit) / mean);
      }
      block.covariance[i * n + i] += kDamping;
    }
    block.hand_on = hand_on_factors(block.covariance, n);
    blocks.push_back(std::move(block));
  }
  return blocks;
}

void encode_strip(const TileCodebook& book, const FeedbackBlock& block, const float (*w)[kTileRows],
                  const float* row_scale, FeedbackScratch* scratch, TileCodes* tiles, TileErrors* errors) {
  static const EncodeStrip encode = choose_encoder();
  const Strip strip(scratch, block.columns);
  encode(book, block, strip, w, row_scale, tiles);
  // The gradient is C (q - w) already; rows and columns are added in one order on all machines.
  const size_t n = static_cast<size_t>(block.columns);
  for (size_t row = 0; row < kTileRows; ++row) {
    if (!(row_scale[row] > 0.0f)) continue;
    for (size_t column = 0; column < n; ++column) {
      const size_t at = column * kTileRows + row;
      for (int l = 0; l < kLevels; ++l) {
        const int from = l == 3 && !(book.weight8 > 0.0f) ? 2 : l;
        errors->level[l] += static_cast<double>(strip.value[from][at] - w[column][row]) * strip.gradient[from][at];
      }
      double output = 0.0;
      for (size_t k = 0; k < n; ++k) output += static_cast<double>(block.covariance[column * n + k]) * w[k][row];
      errors->energy += output * w[column][row];
    }
  }
}

}  // namespace moestro
