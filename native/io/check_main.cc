// The self-checks of base, memory and io as a program, for sanitizers: check_main DIRECTORY [FIRST_SEED [SEEDS]].
#include <cstdio>
#include <cstdlib>

#include "native/base/check.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s SCRATCH_DIRECTORY [FIRST_SEED [SEEDS]]\n", argv[0]);
    return 2;
  }
  const uint64_t first = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  const uint64_t seeds = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1;
  size_t failures = 0;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    for (const std::string& line : moestro::check_base(seed, argv[1])) {
      std::printf("%s\n", line.c_str());
      ++failures;
    }
  }
  std::printf("%llu seeds, %zu failures\n", static_cast<unsigned long long>(seeds), failures);
  return failures == 0 ? 0 : 1;
}
