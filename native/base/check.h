// Self-checks of the folders below the kernels. Each returns one line per failure, naming its seed; none means that
// all holds.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moestro {

// All of the three below. Writes a file of a few MiB into `scratch_directory` and removes it.
std::vector<std::string> check_base(uint64_t seed, const std::string& scratch_directory);

std::vector<std::string> check_threads_and_checksums(uint64_t seed);                        // native/base
std::vector<std::string> check_memory(uint64_t seed);                                       // native/memory
std::vector<std::string> check_reads(uint64_t seed, const std::string& scratch_directory);  // native/io

// Gathers failures: expect() adds a line when `holds` is false.
class CheckLog {
 public:
  explicit CheckLog(uint64_t seed) : seed_(seed) {}
  bool expect(bool holds, const std::string& what) {
    if (!holds) lines_.push_back("seed " + std::to_string(seed_) + ": " + what);
    return holds;
  }
  std::vector<std::string> take() { return std::move(lines_); }

 private:
  uint64_t seed_;
  std::vector<std::string> lines_;
};

}  // namespace moestro
