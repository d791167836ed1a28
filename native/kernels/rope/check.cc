#include "native/kernels/check_tools.h"
#include "native/kernels/rope/rope.h"

namespace moestro {

void check_rope(CheckLog* log, Random* random) {
  for (Values values : kAllValues) {
    for (int d : {32, 64, 96, 128}) {
      const std::vector<float> x = make_values(values, d, random);
      std::vector<float> cos(d / 2), sin(d / 2);
      for (int i = 0; i < d / 2; ++i) {
        const double angle = one_value(Values::usual, random) * 100;
        cos[i] = static_cast<float>(std::cos(angle));
        sin[i] = static_cast<float>(std::sin(angle));
      }
      const std::string what = "rope_f32 of " + std::to_string(d) + " " + name_of(values) + " values, ";
      std::vector<float> expected = x;
      rope_f32_scalar(expected.data(), d, cos.data(), sin.data());
      for (const auto& variant : variants_to_check(rope_f32_variants())) {
        std::vector<float> actual = x;
        variant.function(actual.data(), d, cos.data(), sin.data());
        expect_same_bits(log, what + isa_name(variant.isa), expected, actual);
      }
      if (values == Values::huge || values == Values::any_bits) continue;
      for (int i = 0; i < d / 2; ++i) {
        const double a = x[i], b = x[i + d / 2];
        const double tolerance = 2 * kEps * (std::fabs(a) + std::fabs(b)) + 1e-44;
        if (!expect_near(log, what + "scalar", expected[i], a * cos[i] - b * sin[i], tolerance)) break;
        if (!expect_near(log, what + "scalar", expected[i + d / 2], b * cos[i] + a * sin[i], tolerance)) break;
      }
    }
  }
}

}  // namespace moestro
