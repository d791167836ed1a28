// Holds every kernel to its contract: each variant that this CPU runs to the scalar one, bit for bit, and the scalar
// one to the plain formula in double.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moestro {

// One line per failure, naming the seed; none means that all kernels agree. Takes some seconds.
std::vector<std::string> check_kernels(uint64_t seed);

}  // namespace moestro
