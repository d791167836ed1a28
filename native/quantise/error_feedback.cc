#include "native/quantise/error_feedback.h"

#include <algorithm>

#include "native/quantise/lanes.h"

#define MOESTRO_INLINE inline __attribute__((always_inline))

namespace moestro {
namespace {

// Rounds of coordinate descent over codes; scales are tried again in the first of them, and the residuals of level 8
// alone at the end. Measured on the bundled model: what further rounds gain is under 1 %.
constexpr int kRounds = 8;
constexpr int kScaleRounds = 3;
constexpr int kResidualRounds = 4;
constexpr int kScaleMoves[] = {1, -1, 2, -2};  // on the grid
// What level 8 weighs, against the weights of TileCodebook. Measured on the bundled model, 22,860 positions: level 8
// has 0.95, 0.84 and 0.81 of the divergence of Q8_0 at 128, 256 and 512; at 384 level 3 nears twice that of Q4_0.
constexpr float kReachWeight = 256.0f;
constexpr int kLevels = 4;  // 2, 3, 4, 8

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

  static MOESTRO_INLINE bool counts(const TileCodebook& book, int level) {
    const float weights[kLevels] = {book.weight2, book.weight3, book.weight4, book.weight8};
    return weights[level] > 0.0f;
  }

  // The code of the least cost for targets x [4] in units of the scale. Level 8 has no say but that its residual must
  // reach the target: to choose codes for the grid of residuals costs the other levels more than it gains.
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
        const Floats over = larger(larger(d8, -d8) - 0.25f * book.residual_step, Floats{});
        cost += over * over * kReachWeight;
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
            // In reach, a residual errs by its step / 2 at most, evenly spread: half units, hence 48.
            best += (over * over + book.residual_step * book.residual_step * (1.0f / 48.0f)) * kReachWeight;
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
        if (counts(book, l)) hand_on(strip.target[l], load(&w[column][row0]) - value, factors, column + 1, n, row0);
      }
    }
  }

  // gradient = C (q - w) from scratch.
  static MOESTRO_INLINE void start_gradients(const FeedbackBlock& block, const Strip& strip,
                                             const float (*w)[kTileRows], int row0) {
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
  }

  // A new value of one weight at one level.
  static MOESTRO_INLINE void set_value(const FeedbackBlock& block, const Strip& strip, int level, int column, int row0,
                                       const Floats& value) {
    float* old = strip.value[level] + static_cast<size_t>(column) * kTileRows + row0;
    const float* row = block.covariance.data() + static_cast<size_t>(column) * block.columns;
    hand_on(strip.gradient[level], value - load(old), row, 0, block.columns, row0);
    store(old, value);
  }

  // Coordinate descent: with the gradient g = C (q - w), the best value of one weight is q - g / C[j][j].
  static MOESTRO_INLINE void code_again(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                                        int row0, TileCodes* tiles) {
    for (int column = 0; column < block.columns; ++column) {
      const size_t at = static_cast<size_t>(column) * kTileRows + row0;
      const Floats scale = load(strip.scale + column / kGroup * kTileRows + row0), inverse = 1.0f / scale;
      const float step = 1.0f / block.covariance[static_cast<size_t>(column) * block.columns + column];
      Floats x[kLevels];
      for (int l = 0; l < kLevels; ++l)
        x[l] = (load(strip.value[l] + at) - load(strip.gradient[l] + at) * step) * inverse;
      const Choice choice = choose(book, x);
      keep(choice, tiles, column, row0);
      for (int l = 0; l < kLevels; ++l) set_value(block, strip, l, column, row0, choice.value[l] * scale);
    }
  }

  // The same for the residuals of level 8 alone, which no other level minds.
  static MOESTRO_INLINE void code_residuals(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                                            int row0, TileCodes* tiles) {
    for (int column = 0; column < block.columns; ++column) {
      const size_t at = static_cast<size_t>(column) * kTileRows + row0;
      const Floats scale = load(strip.scale + column / kGroup * kTileRows + row0), inverse = 1.0f / scale;
      const float step = 1.0f / block.covariance[static_cast<size_t>(column) * block.columns + column];
      const Floats x = (load(strip.value[3] + at) - load(strip.gradient[3] + at) * step) * inverse;
      const Floats v4 = load(strip.value[2] + at) * inverse;
      Floats steps = (2.0f * (x - v4) - book.residual_offset) * (1.0f / book.residual_step) + 0.5f;
      steps = smaller(larger(steps, Floats{}), splat(15.5f));
      const Ints r = __builtin_convertvector(steps, Ints);
      for (int lane = 0; lane < kLanes; ++lane)
        tiles[column / kGroup].residual[column % kGroup][row0 + lane] = static_cast<uint8_t>(r[lane]);
      const Floats beyond = 0.5f * (book.residual_step * __builtin_convertvector(r, Floats) + book.residual_offset);
      set_value(block, strip, 3, column, row0, (v4 + beyond) * scale);
    }
  }

  // One group with another scale: its values, what they do to its own gradients, and the change of the cost.
  struct Trial {
    Floats scale, cost;
    Ints index;
    Floats value[kLevels][kGroup], gradient[kLevels][kGroup];
    Ints code[kGroup], residual[kGroup];
  };

  // Moves the group at `first` to the scale of `trial` and chooses its codes anew, twice, all others as they are.
  static MOESTRO_INLINE void try_scale(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                                       int first, int row0, Trial* trial) {
    const float weights[kLevels] = {book.weight2, book.weight3, book.weight4, kReachWeight};
    const Floats old = load(strip.scale + first / kGroup * kTileRows + row0);
    const Floats inverse = 1.0f / trial->scale, ratio = trial->scale / old;
    const auto covariance = [&](int column) {
      return block.covariance.data() + static_cast<size_t>(first + column) * block.columns + first;
    };
    const auto at = [&](const float* values, int column) {
      return load(values + static_cast<size_t>(first + column) * kTileRows + row0);
    };
    const auto set = [&](int l, int column, const Floats& value) {
      const Floats change = value - trial->value[l][column];
      trial->value[l][column] = value;
      for (int k = 0; k < kGroup; ++k) trial->gradient[l][k] += change * covariance(column)[k];
    };
    for (int l = 0; l < kLevels; ++l) {
      for (int column = 0; column < kGroup; ++column) {
        trial->value[l][column] = at(strip.value[l], column);
        trial->gradient[l][column] = at(strip.gradient[l], column);
      }
      if (!counts(book, l)) continue;
      for (int column = 0; column < kGroup; ++column) set(l, column, trial->value[l][column] * ratio);
    }
    for (int round = 0; round < 2; ++round) {
      for (int column = 0; column < kGroup; ++column) {
        const float step = 1.0f / covariance(column)[column];
        Floats x[kLevels];
        for (int l = 0; l < kLevels; ++l)
          x[l] = (trial->value[l][column] - trial->gradient[l][column] * step) * inverse;
        const Choice choice = choose(book, x);
        trial->code[column] = choice.code;
        trial->residual[column] = choice.residual;
        for (int l = 0; l < kLevels; ++l)
          if (counts(book, l)) set(l, column, choice.value[l] * trial->scale);
      }
    }
    // (q' - w) C (q' - w) - (q - w) C (q - w) = (q' - q) (g' + g)
    trial->cost = Floats{};
    for (int l = 0; l < kLevels; ++l) {
      if (!counts(book, l)) continue;
      Floats sum = {};
      for (int column = 0; column < kGroup; ++column)
        sum += (trial->value[l][column] - at(strip.value[l], column)) *
               (trial->gradient[l][column] + at(strip.gradient[l], column));
      trial->cost += sum * weights[l];
    }
  }

  // Every group tries its neighbours on the grid of scales; of those that lower the cost the best is kept.
  static MOESTRO_INLINE void scale_again(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                                         const float* row_scale, int row0, TileCodes* tiles) {
    const Floats given = load(row_scale + row0);
    const Floats rows = given > 0.0f ? given : splat(1.0f);
    for (int first = 0; first < block.columns; first += kGroup) {
      TileCodes& tile = tiles[first / kGroup];
      float* scale_at = strip.scale + first / kGroup * kTileRows + row0;
      Ints index = {}, negative = {};
      for (int lane = 0; lane < kLanes; ++lane) {
        index[lane] = tile.scale[row0 + lane] & 127;
        negative[lane] = tile.scale[row0 + lane] >> 7;
      }
      Trial best{}, trial;
      Ints moved = {};
      for (const int move : kScaleMoves) {
        trial.index = index + move;
        trial.index = trial.index < 0 ? Ints{} : trial.index;
        trial.index = trial.index > kGridSize - 1 ? Ints{} + (kGridSize - 1) : trial.index;
        const Floats magnitude = rows * grid_value(trial.index);
        trial.scale = negative != 0 ? -magnitude : magnitude;
        try_scale(book, block, strip, first, row0, &trial);
        const Ints wins = (trial.cost < best.cost) & (given > 0.0f);
        moved |= wins;
        best.cost = wins ? trial.cost : best.cost;
        best.scale = wins ? trial.scale : best.scale;
        best.index = wins ? trial.index : best.index;
        for (int column = 0; column < kGroup; ++column) {
          best.code[column] = wins ? trial.code[column] : best.code[column];
          best.residual[column] = wins ? trial.residual[column] : best.residual[column];
          for (int l = 0; l < kLevels; ++l)
            best.value[l][column] = wins ? trial.value[l][column] : best.value[l][column];
        }
      }
      bool any = false;
      for (int lane = 0; lane < kLanes; ++lane) {
        if (moved[lane] == 0) continue;
        any = true;
        tile.scale[row0 + lane] = static_cast<uint8_t>(best.index[lane] | negative[lane] << 7);
        for (int column = 0; column < kGroup; ++column) {
          tile.code[column][row0 + lane] = static_cast<uint8_t>(best.code[column][lane]);
          tile.residual[column][row0 + lane] = static_cast<uint8_t>(best.residual[column][lane]);
        }
      }
      if (!any) continue;
      store(scale_at, moved != 0 ? best.scale : load(scale_at));
      for (int column = 0; column < kGroup; ++column) {
        for (int l = 0; l < kLevels; ++l) {
          const Floats old = load(strip.value[l] + static_cast<size_t>(first + column) * kTileRows + row0);
          set_value(block, strip, l, first + column, row0, moved != 0 ? best.value[l][column] : old);
        }
      }
    }
  }

  static MOESTRO_INLINE void encode(const TileCodebook& book, const FeedbackBlock& block, const Strip& strip,
                                    const float (*w)[kTileRows], const float* row_scale, TileCodes* tiles) {
    for (int row0 = 0; row0 < kTileRows; row0 += kLanes) {
      code_in_order(book, block, strip, w, row_scale, row0, tiles);
      start_gradients(block, strip, w, row0);
      for (int round = 0; round < kRounds; ++round) {
        if (round > 0 && round <= kScaleRounds) scale_again(book, block, strip, row_scale, row0, tiles);
        code_again(book, block, strip, row0, tiles);
      }
      for (int round = 0; round < (book.weight8 > 0.0f ? kResidualRounds : 0); ++round)
        code_residuals(book, block, strip, row0, tiles);
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

}  // namespace

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
