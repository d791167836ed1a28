#include "native/kernels/check_tools.h"
#include "native/kernels/gemm_q8_dense/gemm_q8_dense.h"

namespace moestro {
namespace {

struct Case {
  int bits, rows, cols, tokens, row_begin, row_end;
  Values values;
};

constexpr float kUntouched = 12345.0f;

struct TestMatrix {
  std::vector<uint8_t> codes, group_scales;
  std::vector<uint16_t> scales, row_scales;
  DenseMatrix view;
};

// bf16 of either sign between 2^-17 and 2^14, or zero.
uint16_t one_row_scale(Random* random) {
  if (random->between(0, 15) == 0) return 0;
  return static_cast<uint16_t>(random->between(0, 1) << 15 | random->between(110, 140) << 7 | random->between(0, 127));
}

TestMatrix make_matrix(const Case& c, Random* random) {
  const size_t tiles = static_cast<size_t>(c.rows / 16) * (c.cols / 32);
  TestMatrix m;
  m.codes.resize(tiles * 64 * c.bits);
  for (uint8_t& code : m.codes) {
    const uint8_t any = static_cast<uint8_t>(random->between(c.bits == 8 ? 1 : 0, 255));
    code = c.values != Values::largest ? any : any >= 128 ? 255 : c.bits == 8 ? 1 : 0;
  }
  if (c.bits == 4) {
    m.group_scales.resize(tiles * 16);
    for (uint8_t& scale : m.group_scales) scale = static_cast<uint8_t>(random->between(0, 255));
    for (int r = 0; r < c.rows; ++r) m.row_scales.push_back(one_row_scale(random));
  } else {
    m.scales = make_half_scales(tiles * 16, random);
  }
  m.view = {c.bits, m.codes.data(), m.scales.data(), m.group_scales.data(), m.row_scales.data(), c.rows, c.cols};
  return m;
}

double weight_of(const TestMatrix& m, int row, int col) {
  const size_t tile = static_cast<size_t>(row / 16) * (m.view.cols / 32) + col / 32;
  const int lane = row % 16, step = col % 32 / 4, byte = lane * 4 + col % 4;
  const uint8_t* codes = m.codes.data() + tile * 64 * m.view.bits;
  if (m.view.bits == 8) return half_to_double(m.scales[tile * 16 + lane]) * (codes[step * 64 + byte] - 128);
  const int low = codes[step / 2 * 64 + byte] >> (step % 2 * 4) & 15;
  if (m.view.bits == 6) {
    const int high = codes[(4 + step / 4) * 64 + byte] >> (step % 4 * 2) & 3;
    return half_to_double(m.scales[tile * 16 + lane]) * (high * 16 + low - 32);
  }
  const uint8_t g = m.group_scales[tile * 16 + lane];
  const double group = (1 + (g & 15) / 16.0) * std::ldexp(1.0, (g >> 4 & 7) - 7) * (g & 128 ? -1 : 1);
  const uint32_t row_bits = static_cast<uint32_t>(m.row_scales[row]) << 16;
  float row_scale;
  std::memcpy(&row_scale, &row_bits, 4);
  return row_scale * group * kDenseTable[low];
}

void check_formula(CheckLog* log, const std::string& what, const TestMatrix& m, const Q8Activations& x, const Case& c,
                   const std::vector<float>& y) {
  const int groups = c.cols / 32;
  for (int t = 0; t < c.tokens; ++t) {
    for (int r = c.row_begin; r < c.row_end; ++r) {
      double sum = 0, magnitude = 0;
      for (int col = 0; col < c.cols; ++col) {
        const double value = static_cast<double>(x.scale[t * groups + col / 32]) * x.q[t * c.cols + col];
        const double product = weight_of(m, r, col) * value;
        sum += product;
        magnitude += std::fabs(product);
      }
      const double tolerance = (groups + 2) * kEps * magnitude + 1e-37;
      if (!expect_near(log, what, y[static_cast<size_t>(t) * c.rows + r], sum, tolerance)) return;
    }
  }
}

void check_case(CheckLog* log, Random* random, const Case& c) {
  const TestMatrix m = make_matrix(c, random);
  const TestActivations a = make_activations(c.values, c.tokens, c.cols, random);
  const Q8Activations x = {a.q.data(), a.scale.data(), a.sum.data(), c.cols};
  const auto run = [&](GemmQ8Dense* function) {
    std::vector<float> y(static_cast<size_t>(c.tokens) * c.rows, kUntouched);
    function(m.view, x, c.tokens, c.row_begin, c.row_end, y.data(), c.rows);
    return y;
  };

  const std::string what = "gemm_q8_dense " + std::to_string(c.bits) + " bits, " + std::to_string(c.rows) + " x " +
                           std::to_string(c.cols) + ", " + std::to_string(c.tokens) + " tokens, " + name_of(c.values) +
                           ", ";
  const std::vector<float> expected = run(gemm_q8_dense_scalar);
  if (c.values != Values::huge && c.values != Values::any_bits) {
    check_formula(log, what + "scalar", m, x, c, expected);
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
    gemm_q8_dense_scalar(m.view, one, 1, c.row_begin, c.row_end, alone.data(), c.rows);
    const auto from = expected.begin() + static_cast<ptrdiff_t>(t) * c.rows;
    expect_same_bits(log, what + "alone", std::vector<float>(from, from + c.rows), alone);
  }
}

}  // namespace

void check_gemm_q8_dense(CheckLog* log, Random* random) {
  for (int bits : {4, 6, 8}) {
    for (Values values : kAllValues) check_case(log, random, {bits, 32, 96, 3, 0, 32, values});
    for (int tokens = 0; tokens <= 19; ++tokens)
      check_case(log, random, {bits, 48, 160, tokens, 16, 48, Values::usual});
    check_case(log, random, {bits, 64, 2048, 1, 0, 64, Values::usual});
    // Strips of two rows of tiles side by side, and one row of tiles that is left.
    check_case(log, random, {bits, 176, 160, 1, 16, 160, Values::usual});
    // Two panels of columns, the second a part of one.
    check_case(log, random, {bits, 32, 1056, 11, 0, 32, Values::usual});
    check_case(log, random, {bits, 16, 32, 1, 0, 0, Values::usual});
    check_case(log, random, {bits, 16, 32, 40, 0, 16, Values::largest});
  }
}

}  // namespace moestro
