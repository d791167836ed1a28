#include "native/quantise/error_feedback.h"

#include "native/quantise/feedback_scales.h"

namespace moestro {
namespace {

// Rounds of coordinate descent over codes; scales are tried again in the first of them, and the residuals of level 8
// alone at the end. Measured on the bundled model: what further rounds gain is under 1 %.
constexpr int kRounds = 8;
constexpr int kScaleRounds = 3;
constexpr int kResidualRounds = 4;

template <int kLanes>
struct Feedback : FeedbackScales<kLanes> {
  using Base = FeedbackScales<kLanes>;
  using Base::choose;
  using Base::counts;
  using Base::hand_on;
  using Base::keep;
  using Base::larger;
  using Base::load;
  using Base::scale_again;
  using Base::search_scale;
  using Base::set_value;
  using Base::smaller;
  using Base::splat;
  using Base::store;
  using typename Base::Choice;
  using typename Base::Floats;
  using typename Base::Ints;

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
