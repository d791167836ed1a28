// check_kernels as a program, to be built with sanitizers beside the addon:
//   g++ -std=c++20 -O1 -g -ffp-contract=off -fsanitize=address,undefined -I. native/base/cpu.cc native/kernels/*.cc
//       native/kernels/*/*.cc -o check_kernels && ./check_kernels [SEED]
// Prints every failure and exits with 1, or says that all agree.
#include <cstdio>
#include <cstdlib>

#include "native/base/cpu.h"
#include "native/kernels/check.h"

int main(int count, char** arguments) {
  const uint64_t seed = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 1;
  const std::vector<std::string> failures = moestro::check_kernels(seed);
  for (const std::string& line : failures) std::printf("%s\n", line.c_str());
  if (!failures.empty()) return 1;
  std::printf("all kernels agree:");
  for (moestro::Isa isa : moestro::detected_isas()) std::printf(" %s", moestro::isa_name(isa));
  std::printf("\n");
  return 0;
}
