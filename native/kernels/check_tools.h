// What the check.cc of every kernel uses: inputs that hurt, and comparisons that say where they failed.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "native/base/check.h"
#include "native/base/cpu.h"
#include "native/base/random.h"
#include "native/kernels/variant.h"

namespace moestro {

// One function per kernel folder; check.cc calls them all.
void check_quantize_q8(CheckLog* log, Random* random);
void check_gemm_q8_dense(CheckLog* log, Random* random);
void check_gemm_q8_planes(CheckLog* log, Random* random);
void check_gemm_f32(CheckLog* log, Random* random);
void check_rmsnorm(CheckLog* log, Random* random);
void check_rope(CheckLog* log, Random* random);
void check_swiglu(CheckLog* log, Random* random);
void check_kv_store(CheckLog* log, Random* random);
void check_attention(CheckLog* log, Random* random);
void check_select_logits(CheckLog* log, Random* random);
void check_topk_router(CheckLog* log, Random* random);
void check_f16(CheckLog* log, Random* random);

constexpr double kEps = std::numeric_limits<float>::epsilon();

enum class Values { usual, zeros, largest, tiny, huge, spread, any_bits };
constexpr Values kAllValues[] = {Values::usual, Values::zeros,  Values::largest, Values::tiny,
                                 Values::huge,  Values::spread, Values::any_bits};
// Those for which a formula in double is within the range of float throughout.
constexpr Values kTameValues[] = {Values::usual, Values::zeros, Values::spread};

std::string name_of(Values values);
float one_value(Values values, Random* random);
std::vector<float> make_values(Values values, size_t n, Random* random);

// int8 activations [tokens, cols] with scales and sums as quantize_q8 would leave them; `values` largest takes q =
// +-127 only, zeros all zero, others anything in [-127, 127].
struct TestActivations {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> sum;
};
TestActivations make_activations(Values values, int tokens, int cols, Random* random);

// Finite f16 scales; zero, denormal and large ones among them.
std::vector<uint16_t> make_half_scales(size_t n, Random* random);
double half_to_double(uint16_t half);

// The instruction sets of `variants` that this CPU runs, scalar left out.
template <typename Function>
std::vector<Variant<Function>> variants_to_check(const Variants<Function>& variants) {
  const std::vector<Isa> detected = detected_isas();
  std::vector<Variant<Function>> found;
  for (const Variant<Function>& variant : variants) {
    for (Isa isa : detected) {
      if (isa == variant.isa && isa != Isa::scalar) found.push_back(variant);
    }
  }
  return found;
}
template <typename Function>
Function* scalar_of(const Variants<Function>& variants) {
  return variants.best(Isa::scalar);
}

// Adds a line naming the first element whose bits differ; two NaNs count as equal.
template <typename T>
void expect_same_bits(CheckLog* log, const std::string& what, const std::vector<T>& expected,
                      const std::vector<T>& actual) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::memcmp(&expected[i], &actual[i], sizeof(T)) == 0) continue;
    if (expected[i] != expected[i] && actual[i] != actual[i]) continue;
    log->expect(false, what + " differs at " + std::to_string(i) + ": got " + std::to_string(actual[i]) +
                           ", scalar gives " + std::to_string(expected[i]));
    return;
  }
}

// Adds a line when |actual - expected| > tolerance, or either is NaN.
bool expect_near(CheckLog* log, const std::string& what, double actual, double expected, double tolerance);

}  // namespace moestro
