#include "native/kernels/check_tools.h"
#include "native/kernels/swiglu/swiglu.h"

namespace moestro {
namespace {

double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void check_swiglu_case(CheckLog* log, Random* random, Values values, int n) {
  std::vector<float> gate = make_values(values, n, random);
  const std::vector<float> up = make_values(Values::usual, n, random);
  if (values == Values::usual) {
    for (float& value : gate) value *= 35;  // past both ends of exp
  }
  const std::string what = "swiglu_f32 of " + std::to_string(n) + " " + name_of(values) + " values, ";
  std::vector<float> expected(n);
  swiglu_f32_scalar(gate.data(), up.data(), n, expected.data());
  for (const auto& variant : variants_to_check(swiglu_f32_variants())) {
    std::vector<float> in_place = gate;
    variant.function(in_place.data(), up.data(), n, in_place.data());
    expect_same_bits(log, what + isa_name(variant.isa), expected, in_place);
  }
  if (values == Values::huge || values == Values::any_bits) return;
  for (int i = 0; i < n; ++i) {
    const double exact = gate[i] * exact_sigmoid(gate[i]) * up[i];
    const double tolerance = 8 * kEps * std::fabs(exact) + 4e-37 * std::fabs(up[i]);
    if (!expect_near(log, what + "scalar", expected[i], exact, tolerance)) return;
  }
}

void check_sigmoid(CheckLog* log, Random* random) {
  for (int i = 0; i < 2000; ++i) {
    const float x = i < 1000 ? static_cast<float>(i - 500) / 5 : one_value(Values::any_bits, random);
    const float expected = sigmoid_scalar(x);
    if (x == x) {
      const double exact = exact_sigmoid(x);
      expect_near(log, "sigmoid scalar of " + std::to_string(x), expected, exact, 4 * kEps * exact + 5e-39);
    }
    for (const auto& variant : variants_to_check(sigmoid_variants())) {
      expect_same_bits(log, "sigmoid " + std::string(isa_name(variant.isa)) + " of " + std::to_string(x),
                       std::vector<float>{expected}, std::vector<float>{variant.function(x)});
    }
  }
}

void check_axpy(CheckLog* log, Random* random, Values values) {
  const std::vector<float> x = make_values(values, 80, random), y = make_values(values, 80, random);
  const float a = one_value(Values::usual, random);
  std::vector<float> expected = y;
  axpy_f32_scalar(a, x.data(), 80, expected.data());
  for (int i = 0; i < 80; ++i) {
    const float fused = std::fmaf(a, x[i], y[i]);
    if (fused == fused && !log->expect(expected[i] == fused, "axpy_f32 scalar is not a fused multiply-add")) break;
  }
  for (const auto& variant : variants_to_check(axpy_f32_variants())) {
    std::vector<float> actual = y;
    variant.function(a, x.data(), 80, actual.data());
    expect_same_bits(log, "axpy_f32 " + name_of(values) + " " + isa_name(variant.isa), expected, actual);
  }
}

}  // namespace

void check_swiglu(CheckLog* log, Random* random) {
  for (Values values : kAllValues) {
    for (int n : {16, 32, 48, 768}) check_swiglu_case(log, random, values, n);
    check_axpy(log, random, values);
  }
  check_sigmoid(log, random);
}

}  // namespace moestro
