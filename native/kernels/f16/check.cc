#include "native/kernels/check_tools.h"
#include "native/kernels/f16/f16.h"

namespace moestro {

void check_f16(CheckLog* log, Random*) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  std::vector<float> expected(all.size());
  f16_to_f32_scalar(all.data(), static_cast<int>(all.size()), expected.data());
  for (size_t i = 0; i < all.size(); ++i) {
    if ((i & 0x7c00) == 0x7c00) continue;  // infinities and NaNs have no formula
    if (!expect_near(log, "f16_to_f32_scalar of " + std::to_string(i), expected[i], half_to_double(all[i]), 0)) break;
  }
  log->expect(std::isinf(expected[0x7c00]) && std::isnan(expected[0x7c01]), "f16_to_f32_scalar loses inf or NaN");
  for (const auto& variant : variants_to_check(f16_to_f32_variants())) {
    std::vector<float> actual(all.size());
    variant.function(all.data(), static_cast<int>(all.size()), actual.data());
    expect_same_bits(log, std::string("f16_to_f32 ") + isa_name(variant.isa), expected, actual);
  }
}

}  // namespace moestro
