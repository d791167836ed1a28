// Repeatable random numbers for fakes and checks: splitmix64, by S. Vigna (public domain). Each step is a bijection of
// a counter, so any seed is a good one.
#pragma once
#include <cstdint>

namespace moestro {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  // In [low, high], both included.
  uint64_t between(uint64_t low, uint64_t high) { return low + next() % (high - low + 1); }
  bool happens(double share) { return static_cast<double>(next() >> 11) * 0x1p-53 < share; }

 private:
  uint64_t state_;
};

}  // namespace moestro
