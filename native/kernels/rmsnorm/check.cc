#include "native/kernels/check_tools.h"
#include "native/kernels/rmsnorm/rmsnorm.h"

namespace moestro {

void check_rmsnorm(CheckLog* log, Random* random) {
  for (Values values : kAllValues) {
    for (int n : {16, 32, 48, 2048}) {
      const std::vector<float> x = make_values(values, n, random);
      const std::vector<float> weight = make_values(Values::usual, n, random);
      const std::string what = "rmsnorm_f32 of " + std::to_string(n) + " " + name_of(values) + " values, ";
      std::vector<float> expected(n);
      rmsnorm_f32_scalar(x.data(), weight.data(), n, 1e-6f, expected.data());
      for (const auto& variant : variants_to_check(rmsnorm_f32_variants())) {
        std::vector<float> in_place = x;
        variant.function(in_place.data(), weight.data(), n, 1e-6f, in_place.data());
        expect_same_bits(log, what + isa_name(variant.isa), expected, in_place);
      }
      if (values == Values::huge || values == Values::any_bits) continue;
      double squares = 0;
      for (float value : x) squares += static_cast<double>(value) * value;
      const double factor = 1 / std::sqrt(squares / n + 1e-6f);
      for (int i = 0; i < n; ++i) {
        const double exact = x[i] * factor * weight[i];
        if (!expect_near(log, what + "scalar", expected[i], exact, (n / 32 + 8) * kEps * std::fabs(exact) + 1e-44))
          break;
      }
    }
  }
}

}  // namespace moestro
