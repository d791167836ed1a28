// Random cases of every kernel through the table that layers/ calls: where check.cc beside a kernel takes sizes and
// values on purpose, this takes what comes, thousands of times.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moestro {

struct RandomCases {
  std::vector<std::string> failures;  // a line names seed, case, kernel, shape and instruction set
  // Of all that the scalar kernels returned, any NaN counted as one: the same number on every architecture.
  uint64_t digest;
};

// `cases` calls of kernels with shapes, strides, infinities, NaNs, denormals and extremes drawn from `seed`: each set
// of instructions that this CPU runs against scalar, bit for bit, what lies beside the outputs included.
RandomCases check_random_cases(uint64_t seed, int cases);

}  // namespace moestro
