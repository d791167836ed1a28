// check_kernels as a program, for sanitizers, other processors and emulators (scripts/nightly.mjs,
// scripts/check-neon.mjs):
//   check_kernels [SEED [RANDOM_CASES]]
// Prints every failure and exits with 1, or says which instruction sets agree and, on a line of its own, a digest of
// the scalar results of RANDOM_CASES (1000) random cases, which is the same on every architecture.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "native/base/cpu.h"
#include "native/kernels/check.h"
#include "native/kernels/check_random.h"

int main(int count, char** arguments) {
  const uint64_t seed = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 1;
  const int cases = count > 2 ? std::atoi(arguments[2]) : 1000;
  std::vector<std::string> failures = moestro::check_kernels(seed);
  const moestro::RandomCases random_cases = moestro::check_random_cases(seed + 1, cases);
  failures.insert(failures.end(), random_cases.failures.begin(), random_cases.failures.end());
  for (const std::string& line : failures) std::printf("%s\n", line.c_str());
  if (!failures.empty()) return 1;
  std::printf("all kernels agree:");
  for (moestro::Isa isa : moestro::detected_isas()) std::printf(" %s", moestro::isa_name(isa));
  std::printf("\ndigest of %d random cases: %016" PRIx64 "\n", cases, random_cases.digest);
  return 0;
}
