#include <algorithm>

#include "native/kernels/check_tools.h"
#include "native/kernels/quantize_q8/quantize_q8.h"

namespace moestro {
namespace {

struct Quantized {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> sum;
};

Quantized run(QuantizeQ8* function, const std::vector<float>& x) {
  Quantized out;
  out.q.resize(x.size());
  out.scale.resize(x.size() / 32);
  out.sum.resize(x.size() / 32);
  function(x.data(), static_cast<int>(x.size()), out.q.data(), out.scale.data(), out.sum.data());
  return out;
}

void check_formula(CheckLog* log, const std::string& what, const std::vector<float>& x, const Quantized& out) {
  for (size_t group = 0; group < out.scale.size(); ++group) {
    double most = 0;
    int32_t sum = 0;
    for (size_t i = group * 32; i < group * 32 + 32; ++i) {
      most = std::max(most, std::fabs(static_cast<double>(x[i])));
      sum += out.q[i];
    }
    if (!log->expect(sum == out.sum[group], what + " gives a sum that is not the sum of q")) return;
    if (!expect_near(log, what + " scale", out.scale[group], most / 127, most / 127 * kEps)) return;
    for (size_t i = group * 32; i < group * 32 + 32; ++i) {
      const double restored = static_cast<double>(out.q[i]) * out.scale[group];
      if (!expect_near(log, what + " q * scale", restored, x[i], out.scale[group] * 0.5001)) return;
    }
  }
}

}  // namespace

void check_quantize_q8(CheckLog* log, Random* random) {
  for (Values values : kAllValues) {
    for (int n : {32, 64, 96, 2048}) {
      const std::vector<float> x = make_values(values, n, random);
      const std::string what = "quantize_q8 of " + std::to_string(n) + " " + name_of(values) + " values, ";
      const Quantized expected = run(quantize_q8_scalar, x);
      if (values != Values::tiny && values != Values::any_bits) check_formula(log, what + "scalar", x, expected);
      if (values == Values::tiny) log->expect(expected.scale[0] == 0, what + "scalar does not count them as zero");
      for (const auto& variant : variants_to_check(quantize_q8_variants())) {
        const Quantized actual = run(variant.function, x);
        expect_same_bits(log, what + isa_name(variant.isa) + " q", expected.q, actual.q);
        expect_same_bits(log, what + isa_name(variant.isa) + " scale", expected.scale, actual.scale);
        expect_same_bits(log, what + isa_name(variant.isa) + " sum", expected.sum, actual.sum);
      }
    }
  }
}

}  // namespace moestro
