#include <algorithm>
#include <numeric>

#include "native/kernels/check_tools.h"
#include "native/kernels/topk_router/topk_router.h"

namespace moestro {
namespace {

void check_case(CheckLog* log, const std::vector<float>& logits, int k, bool normalize, const std::string& what) {
  const int n = static_cast<int>(logits.size());
  std::vector<uint16_t> ids(k);
  std::vector<float> weights(k);
  topk_router_scalar(logits.data(), n, k, normalize, ids.data(), weights.data());
  for (const auto& variant : variants_to_check(topk_router_variants())) {
    std::vector<uint16_t> other_ids(k);
    std::vector<float> other_weights(k);
    variant.function(logits.data(), n, k, normalize, other_ids.data(), other_weights.data());
    expect_same_bits(log, what + isa_name(variant.isa) + " ids", ids, other_ids);
    expect_same_bits(log, what + isa_name(variant.isa) + " weights", weights, other_weights);
  }

  const auto key = [&](int i) { return std::isnan(logits[i]) ? -std::numeric_limits<double>::infinity() : logits[i]; };
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return key(a) > key(b); });
  for (int i = 0; i < k; ++i) {
    if (!log->expect(ids[i] == order[i], what + "scalar chooses " + std::to_string(ids[i]) + " at rank " +
                                             std::to_string(i) + ", expected " + std::to_string(order[i]))) {
      return;
    }
  }
  if (!std::isfinite(key(order[0]))) return;
  double total = 0, chosen = 0;
  for (int i = 0; i < n; ++i) total += std::exp(key(i) - key(order[0]));
  for (int i = 0; i < k; ++i) chosen += std::exp(key(order[i]) - key(order[0]));
  for (int i = 0; i < k; ++i) {
    const double exact = std::exp(key(order[i]) - key(order[0])) / (normalize ? chosen : total);
    // The subtraction before exp rounds: half an ulp of a difference of up to 87 shows as 87 eps in the weight.
    const double distance = std::fabs(key(order[i]) - key(order[0]));
    const double tolerance = (16 + n / 16 + std::min(distance, 100.0)) * kEps * exact + 1e-37;
    if (!expect_near(log, what + "scalar weight", weights[i], exact, tolerance)) return;
  }
}

}  // namespace

void check_topk_router(CheckLog* log, Random* random) {
  for (bool normalize : {false, true}) {
    for (int n : {1, 8, 15, 16, 17, 31, 32, 33, 60, 128, 1024}) {
      for (Values values : kAllValues) {
        for (int k : {1, 4, 8, 64}) {
          if (k > n) continue;
          const std::string what = "topk_router " + std::to_string(k) + " of " + std::to_string(n) + " " +
                                   name_of(values) + (normalize ? " normalized, " : ", ");
          std::vector<float> logits = make_values(values, n, random);
          check_case(log, logits, k, normalize, what);
          for (float& value : logits) value = std::round(value);  // ties
          check_case(log, logits, k, normalize, "ties, " + what);
        }
      }
    }
    check_case(log, std::vector<float>(12, std::nanf("")), 4, normalize, "topk_router of NaNs, ");
  }
}

}  // namespace moestro
