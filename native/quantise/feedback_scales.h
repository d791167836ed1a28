// The scales of groups under error feedback: searched when a group's first column comes up, and tried again when all
// columns have codes. Method: error_feedback.h.
#pragma once
#include "native/quantise/feedback_codes.h"

namespace moestro {
namespace {

constexpr int kScaleMoves[] = {1, -1, 2, -2};  // on the grid

template <int kLanes>
struct FeedbackScales : FeedbackCodes<kLanes> {
  using Base = FeedbackCodes<kLanes>;
  using Base::choose;
  using Base::counts;
  using Base::first_candidate;
  using Base::grid_value;
  using Base::larger;
  using Base::load;
  using Base::set_value;
  using Base::smaller;
  using Base::splat;
  using Base::store;
  using typename Base::Choice;
  using typename Base::Floats;
  using typename Base::Ints;

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
};

}  // namespace
}  // namespace moestro
