// What check_random.cc draws its cases from, and how it compares them.
#pragma once
#include <functional>

#include "native/kernels/check_random.h"
#include "native/kernels/check_tools.h"
#include "native/kernels/kernels.h"

namespace moestro {

// FNV-1a over the outputs.
class Digest {
 public:
  template <typename T>
  void add(const std::vector<T>& values) {
    for (T value : values) {
      if (value != value) value = std::numeric_limits<T>::quiet_NaN();
      uint8_t bytes[sizeof(T)];
      std::memcpy(bytes, &value, sizeof(T));
      for (uint8_t byte : bytes) state_ = (state_ ^ byte) * 0x100000001b3ull;
    }
  }
  uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0xcbf29ce484222325ull;
};

// What a kernel may write to, whatever its type; each kernel uses some of them.
struct Outputs {
  std::vector<float> floats, more_floats;
  std::vector<int32_t> ints;
  std::vector<uint16_t> halves;
  std::vector<uint8_t> bytes, more_bytes;
};

// Runs `call` with every instruction set on a copy of `before`, and compares.
class Comparison {
 public:
  Comparison(uint64_t seed, int cases) : log_(seed), random_(seed), cases_(cases) {}
  Random* random() { return &random_; }

  void compare(const std::string& what, const Outputs& before,
               const std::function<void(const Kernels&, Outputs*)>& call) {
    Outputs expected = before;
    call(kernels_for(Isa::scalar), &expected);
    digest_.add(expected.floats);
    digest_.add(expected.more_floats);
    digest_.add(expected.ints);
    digest_.add(expected.halves);
    digest_.add(expected.bytes);
    digest_.add(expected.more_bytes);
    for (Isa isa : detected_isas()) {
      if (isa == Isa::scalar) continue;
      Outputs actual = before;
      call(kernels_for(isa), &actual);
      const std::string name = "random case " + std::to_string(done_) + ", " + what + ", " + isa_name(isa);
      expect_same_bits(&log_, name, expected.floats, actual.floats);
      expect_same_bits(&log_, name, expected.more_floats, actual.more_floats);
      expect_same_bits(&log_, name, expected.ints, actual.ints);
      expect_same_bits(&log_, name, expected.halves, actual.halves);
      expect_same_bits(&log_, name, expected.bytes, actual.bytes);
      expect_same_bits(&log_, name, expected.more_bytes, actual.more_bytes);
    }
    ++done_;
  }
  bool is_done() const { return done_ >= cases_; }
  RandomCases take() { return {log_.take(), digest_.value()}; }

 private:
  CheckLog log_;
  Random random_;
  Digest digest_;
  int cases_, done_ = 0;
};

inline int pick(Random* random, int low, int high) { return static_cast<int>(random->between(low, high)); }

// Half of the time a size around the widths of vectors and of token blocks, else anything up to `most`.
int pick_size(int most, Random* random);

// A vector of one kind of values, into which some of the numbers that end arithmetic are strewn.
std::vector<float> hostile_values(size_t n, Random* random);

template <typename T>
std::vector<T> random_integers(size_t n, uint64_t low, uint64_t high, Random* random) {
  std::vector<T> out(n);
  for (T& value : out) value = static_cast<T>(random->between(low, high));
  return out;
}

}  // namespace moestro
