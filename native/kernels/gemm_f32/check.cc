#include "native/kernels/check_tools.h"
#include "native/kernels/gemm_f32/gemm_f32.h"

namespace moestro {
namespace {

void check_case(CheckLog* log, Random* random, int rows, int cols, int tokens, Values values) {
  const std::vector<float> w = make_values(values, static_cast<size_t>(rows) * cols, random);
  const std::vector<float> x = make_values(values, static_cast<size_t>(tokens) * cols, random);
  const size_t stride = rows + 3;
  const auto run = [&](GemmF32* function) {
    std::vector<float> y(stride * tokens, 12345.0f);
    function(w.data(), rows, cols, x.data(), tokens, y.data(), stride);
    return y;
  };
  const std::string what = "gemm_f32 " + std::to_string(rows) + " x " + std::to_string(cols) + ", " +
                           std::to_string(tokens) + " tokens, " + name_of(values) + ", ";
  const std::vector<float> expected = run(gemm_f32_scalar);
  for (const auto& variant : variants_to_check(gemm_f32_variants())) {
    expect_same_bits(log, what + isa_name(variant.isa), expected, run(variant.function));
  }
  if (values != Values::usual && values != Values::zeros && values != Values::spread) return;
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < rows; ++r) {
      double sum = 0, magnitude = 0;
      for (int c = 0; c < cols; ++c) {
        const double product = static_cast<double>(w[static_cast<size_t>(r) * cols + c]) * x[t * cols + c];
        sum += product;
        magnitude += std::fabs(product);
      }
      const double tolerance = (cols / 16 + 5) * kEps * magnitude;
      if (!expect_near(log, what + "scalar", expected[t * stride + r], sum, tolerance)) return;
    }
  }
}

}  // namespace

void check_gemm_f32(CheckLog* log, Random* random) {
  for (Values values : kAllValues) check_case(log, random, 6, 64, 3, values);
  for (int rows = 1; rows <= 9; ++rows) check_case(log, random, rows, 16, 2, Values::usual);
  for (int cols : {16, 32, 48}) check_case(log, random, 17, cols, 3, Values::usual);
  check_case(log, random, 128, 2048, 2, Values::spread);
  check_case(log, random, 5, 48, 0, Values::usual);
}

}  // namespace moestro
