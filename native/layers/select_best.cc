// The best logits of a vocabulary: what a sampler with top-k looks at.
#include <algorithm>
#include <cmath>
#include <limits>

#include "native/layers/model.h"

namespace moestro {
namespace {

// Logits scanned between two looks at how many were found.
constexpr int kScan = 4096;
// Found ones beyond those wanted before the worst are thrown away: few scans find so many once the bound has risen.
constexpr int kSpare = 512;

// The lowest float that is not below `least`, so that floats compare with it as they do with the double.
float bound_of(double least) {
  constexpr float kMost = std::numeric_limits<float>::max(), kInfinity = std::numeric_limits<float>::infinity();
  if (least != least) return std::numeric_limits<float>::quiet_NaN();
  if (least > kMost) return kInfinity;
  if (least <= -kMost) return least < -std::numeric_limits<double>::max() ? -kInfinity : -kMost;
  const float rounded = static_cast<float>(least);
  return rounded < least ? std::nextafter(rounded, kInfinity) : rounded;
}

}  // namespace

int Model::largest_logit(std::span<const float> logits) const {
  return kernels_->find_largest(logits.data(), static_cast<int>(logits.size()));
}

int Model::best_logits(std::span<const float> logits, double least, int most, int32_t* ids) const {
  const float* x = logits.data();
  const int n = static_cast<int>(logits.size());
  const auto is_better = [x](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); };
  float bound = bound_of(least);
  if (most == 0 || most >= n) return kernels_->find_from(x, 0, n, bound, ids);
  int count = 0;
  bool is_cut = false;
  for (int begin = 0; begin < n;) {
    const int end = std::min(begin + kScan, n);
    count += kernels_->find_from(x, begin, end, bound, ids + count);
    begin = end;
    if (count <= most + (begin < n ? kSpare : 0)) continue;
    std::nth_element(ids, ids + most - 1, ids + count, is_better);
    bound = x[ids[most - 1]];
    count = most;
    is_cut = true;
  }
  if (is_cut) std::sort(ids, ids + count, is_better);
  return count;
}

}  // namespace moestro
