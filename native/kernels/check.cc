#include "native/kernels/check.h"

#include "native/kernels/check_random.h"
#include "native/kernels/check_tools.h"

namespace moestro {
namespace {

constexpr int kRandomCases = 2000;  // a second or two

}  // namespace

std::vector<std::string> check_kernels(uint64_t seed) {
  CheckLog log(seed);
  Random random(seed);
  check_f16(&log, &random);
  check_quantize_q8(&log, &random);
  check_gemm_q8_dense(&log, &random);
  check_gemm_q8_planes(&log, &random);
  check_gemm_f32(&log, &random);
  check_rmsnorm(&log, &random);
  check_rope(&log, &random);
  check_swiglu(&log, &random);
  check_kv_store(&log, &random);
  check_attention(&log, &random);
  check_select_logits(&log, &random);
  check_topk_router(&log, &random);
  std::vector<std::string> failures = log.take();
  const RandomCases random_cases = check_random_cases(seed, kRandomCases);
  failures.insert(failures.end(), random_cases.failures.begin(), random_cases.failures.end());
  return failures;
}

}  // namespace moestro
