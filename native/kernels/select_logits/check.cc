#include "native/kernels/check_tools.h"
#include "native/kernels/select_logits/select_logits.h"

namespace moestro {
namespace {

void check_case(CheckLog* log, const std::vector<float>& x, const std::string& what) {
  const int n = static_cast<int>(x.size());
  int largest = 0;
  float most = -std::numeric_limits<float>::infinity();
  for (int i = 0; i < n; ++i) {
    if (x[i] > most) most = x[i], largest = i;
  }
  for (const auto& variant : variants_to_check(find_largest_variants())) {
    const int found = variant.function(x.data(), n);
    log->expect(found == largest, "find_largest of " + what + isa_name(variant.isa) + " finds " +
                                      std::to_string(found) + ", expected " + std::to_string(largest));
  }
  for (float bound : {most, 0.0f, -most, std::numeric_limits<float>::infinity(),
                      -std::numeric_limits<float>::infinity(), std::nanf("")}) {
    for (int begin : {0, 1, n / 2}) {
      if (begin > n) continue;
      std::vector<int32_t> expected;
      for (int i = begin; i < n; ++i) {
        if (x[i] >= bound) expected.push_back(i);
      }
      for (const auto& variant : variants_to_check(find_from_variants())) {
        std::vector<int32_t> ids(n - begin + 1, -7);
        const int count = variant.function(x.data(), begin, n, bound, ids.data());
        const bool kept = ids[n - begin] == -7;
        ids.resize(count);
        log->expect(kept && ids == expected, "find_from of " + what + isa_name(variant.isa) + " finds others than " +
                                                 std::to_string(expected.size()) + " indices from " +
                                                 std::to_string(begin) + " at or above " + std::to_string(bound));
      }
    }
  }
}

}  // namespace

void check_select_logits(CheckLog* log, Random* random) {
  for (Values values : kAllValues) {
    for (int n : {0, 1, 15, 16, 17, 63, 64, 65, 80, 129, 1000}) {
      const std::string what = std::to_string(n) + " " + name_of(values) + " values, ";
      std::vector<float> x = make_values(values, n, random);
      check_case(log, x, what);
      for (float& value : x) value = std::round(value);  // equal ones, and zeros of both signs
      check_case(log, x, "rounded, " + what);
    }
  }
  check_case(log, std::vector<float>(70, std::nanf("")), "NaNs, ");
  check_case(log, std::vector<float>(70, -std::numeric_limits<float>::infinity()), "lowest values, ");
}

}  // namespace moestro
