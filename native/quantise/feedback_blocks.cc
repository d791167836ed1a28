// Products of inputs to the blocks that error feedback works with: checked, scaled, damped, factored.
#include <algorithm>
#include <cmath>
#include <string>

#include "native/quantise/error_feedback.h"

namespace moestro {
namespace {

// Share of the mean diagonal that is added to every diagonal entry: inputs that the calibration text did not show.
constexpr float kDamping = 0.01f;

// Row j holds U[j][k], k > j, of C = (U + I) D (U + I)^T: from the last column to the first.
std::vector<float> hand_on_factors(const std::vector<float>& covariance, size_t n) {
  std::vector<double> u(n * n, 0.0), d(n, 0.0);
  for (size_t j = n; j-- > 0;) {
    double pivot = covariance[j * n + j];
    for (size_t k = j + 1; k < n; ++k) pivot -= u[j * n + k] * u[j * n + k] * d[k];
    d[j] = std::max(pivot, 1e-6);  // rounding only: damping keeps the exact value above
    for (size_t i = 0; i < j; ++i) {
      double sum = covariance[i * n + j];
      for (size_t k = j + 1; k < n; ++k) sum -= u[i * n + k] * u[j * n + k] * d[k];
      u[i * n + j] = sum / d[j];
    }
  }
  return std::vector<float>(u.begin(), u.end());
}

Status refused(const char* name, int column, float value) {
  return Status("INVALID_ARGUMENT", std::string("Cannot use the importance of ") + name + " column " +
                                        std::to_string(column) + ": got " + std::to_string(value) +
                                        ", needed a number below 1e30, and none below 0 for a column with itself");
}

}  // namespace

Result<std::vector<FeedbackBlock>> feedback_blocks(const float* band, int cols, int width, const char* name) {
  std::vector<FeedbackBlock> blocks;
  for (int first = 0; first < cols; first += width) {
    const int columns = std::min(width, cols - first);
    const size_t n = static_cast<size_t>(columns);
    FeedbackBlock block{first, columns, std::vector<float>(n * n), {}};
    double sum = 0.0;
    for (size_t i = 0; i < n; ++i) {
      const float* row = band + (static_cast<size_t>(first) + i) * static_cast<size_t>(width);
      for (size_t k = 0; k < n; ++k) {
        if (!(std::fabs(row[k]) <= 1e30f) || (k == i && row[k] < 0.0f))
          return refused(name, first + static_cast<int>(i), row[k]);
      }
      sum += row[i];
    }
    const double mean = sum > 0.0 ? sum / static_cast<double>(n) : 1.0;
    for (size_t i = 0; i < n; ++i) {
      for (size_t k = 0; k < n; ++k) {
        // What cannot be a covariance (|C_ik| above the mean of C_ii and C_kk) is cut to one entry by entry.
        const float* band_i = band + (static_cast<size_t>(first) + i) * static_cast<size_t>(width);
        const float* band_k = band + (static_cast<size_t>(first) + k) * static_cast<size_t>(width);
        const double limit = 0.5 * (static_cast<double>(band_i[i]) + band_k[k]);
        const double both = 0.5 * (static_cast<double>(band_i[k]) + band_k[i]);
        block.covariance[i * n + k] = static_cast<float>(std::clamp(both, -limit, limit) / mean);
      }
      block.covariance[i * n + i] += kDamping;
    }
    block.hand_on = hand_on_factors(block.covariance, n);
    blocks.push_back(std::move(block));
  }
  return blocks;
}

}  // namespace moestro
