// The codes of one column of a strip, 16 rows side by side, and what a new value does to the columns beside it: the
// steps that error_feedback.cc and feedback_scales.h are made of. Method: error_feedback.h.
#pragma once
#include "native/quantise/error_feedback.h"
#include "native/quantise/lanes.h"

#define MOESTRO_INLINE inline __attribute__((always_inline))

namespace moestro {
namespace {

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
struct FeedbackCodes : Lanes<kLanes> {
  using Base = Lanes<kLanes>;
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

  // A new value of one weight at one level.
  static MOESTRO_INLINE void set_value(const FeedbackBlock& block, const Strip& strip, int level, int column, int row0,
                                       const Floats& value) {
    float* old = strip.value[level] + static_cast<size_t>(column) * kTileRows + row0;
    const float* row = block.covariance.data() + static_cast<size_t>(column) * block.columns;
    hand_on(strip.gradient[level], value - load(old), row, 0, block.columns, row0);
    store(old, value);
  }
};

}  // namespace
}  // namespace moestro
