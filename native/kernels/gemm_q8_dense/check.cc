#include "native/kernels/check_tools.h"
#include "native/kernels/gemm_q8_dense/gemm_q8_dense.h"

namespace moestro {
namespace {

struct Case {
  int rows, cols, tokens, row_begin, row_end;
  Values values;
};

constexpr float kUntouched = 12345.0f;

void check_formula(CheckLog* log, const std::string& what, const DenseMatrix& w, const Q8Activations& x, const Case& c,
                   const std::vector<float>& y) {
  const int groups = c.cols / 32;
  for (int t = 0; t < c.tokens; ++t) {
    for (int r = c.row_begin; r < c.row_end; ++r) {
      double sum = 0, magnitude = 0;
      for (int col = 0; col < c.cols; ++col) {
        const size_t tile = static_cast<size_t>(r / 16) * groups + col / 32;
        const uint8_t code = w.codes[tile * 512 + (col % 32) / 4 * 64 + (r % 16) * 4 + col % 4];
        const double weight = half_to_double(w.scales[tile * 16 + r % 16]) * (code - 128);
        const double value = static_cast<double>(x.scale[t * groups + col / 32]) * x.q[t * c.cols + col];
        sum += weight * value;
        magnitude += std::fabs(weight * value);
      }
      const double tolerance = (groups + 2) * kEps * magnitude + 1e-37;
      if (!expect_near(log, what, y[static_cast<size_t>(t) * c.rows + r], sum, tolerance)) return;
    }
  }
}

void check_case(CheckLog* log, Random* random, const Case& c) {
  const size_t tiles = static_cast<size_t>(c.rows / 16) * (c.cols / 32);
  std::vector<uint8_t> codes(tiles * 512);
  for (uint8_t& code : codes) {
    const uint8_t any = static_cast<uint8_t>(random->between(1, 255));
    code = c.values == Values::largest ? (any < 128 ? 1 : 255) : any;
  }
  const std::vector<uint16_t> scales = make_half_scales(tiles * 16, random);
  const TestActivations a = make_activations(c.values, c.tokens, c.cols, random);
  const DenseMatrix w = {8, codes.data(), scales.data(), nullptr, nullptr, c.rows, c.cols};
  const Q8Activations x = {a.q.data(), a.scale.data(), a.sum.data(), c.cols};
  const auto run = [&](GemmQ8Dense* function) {
    std::vector<float> y(static_cast<size_t>(c.tokens) * c.rows, kUntouched);
    function(w, x, c.tokens, c.row_begin, c.row_end, y.data(), c.rows);
    return y;
  };

  const std::string what = "gemm_q8_dense " + std::to_string(c.rows) + " x " + std::to_string(c.cols) + ", " +
                           std::to_string(c.tokens) + " tokens, " + name_of(c.values) + ", ";
  const std::vector<float> expected = run(gemm_q8_dense_scalar);
  if (c.values != Values::huge && c.values != Values::any_bits) {
    check_formula(log, what + "scalar", w, x, c, expected);
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    const int row = static_cast<int>(i % c.rows);
    if (row >= c.row_begin && row < c.row_end) continue;
    if (!log->expect(expected[i] == kUntouched, what + "scalar writes outside its rows")) break;
  }
  for (const auto& variant : variants_to_check(gemm_q8_dense_variants())) {
    expect_same_bits(log, what + isa_name(variant.isa), expected, run(variant.function));
  }
  // One token at a time gives what the batch gave.
  for (int t = 0; t < c.tokens; ++t) {
    std::vector<float> alone(c.rows, kUntouched);
    const size_t groups = c.cols / 32;
    const Q8Activations one = {x.q + static_cast<size_t>(t) * c.cols, x.scale + t * groups, x.sum + t * groups, c.cols};
    gemm_q8_dense_scalar(w, one, 1, c.row_begin, c.row_end, alone.data(), c.rows);
    const auto from = expected.begin() + static_cast<ptrdiff_t>(t) * c.rows;
    expect_same_bits(log, what + "alone", std::vector<float>(from, from + c.rows), alone);
  }
}

}  // namespace

void check_gemm_q8_dense(CheckLog* log, Random* random) {
  for (Values values : kAllValues) check_case(log, random, {32, 96, 3, 0, 32, values});
  for (int tokens = 0; tokens <= 19; ++tokens) check_case(log, random, {48, 160, tokens, 16, 48, Values::usual});
  check_case(log, random, {64, 2048, 1, 0, 64, Values::usual});
  check_case(log, random, {16, 32, 1, 0, 0, Values::usual});
  check_case(log, random, {16, 32, 40, 0, 16, Values::largest});
}

}  // namespace moestro
