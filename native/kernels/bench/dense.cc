// Dense matrices: a walk over at least 1 GiB of them, or one again and again.
#include <algorithm>
#include <cstdio>

#include "native/base/random.h"
#include "native/kernels/bench/bench.h"
#include "native/memory/memory.h"

namespace moestro::bench {
namespace {

constexpr size_t kColdBytes = size_t{1} << 30;

struct DenseSize {
  int rows, cols;
};

// What a matrix takes, each part on a cache line of its own.
struct Parts {
  size_t codes, scales, rows;
  size_t read() const { return codes + scales + rows; }
  size_t held() const { return (codes + 63) / 64 * 64 + (scales + 63) / 64 * 64 + (rows + 63) / 64 * 64; }
};

Parts parts_of(const DenseSize& size, int bits) {
  const size_t weights = static_cast<size_t>(size.rows) * size.cols;
  if (bits == 4) return {weights / 2, weights / kGroup, static_cast<size_t>(size.rows) * 2};
  return {weights * bits / 8, weights / kGroup * 2, 0};
}

DenseMatrix matrix_at(uint8_t* at, const DenseSize& size, int bits) {
  const Parts parts = parts_of(size, bits);
  DenseMatrix m{};
  m.bits = bits;
  m.codes = at;
  uint8_t* const scales = at + (parts.codes + 63) / 64 * 64;
  if (bits == 4) {
    m.group_scales = scales;
    m.row_scales = reinterpret_cast<uint16_t*>(scales + (parts.scales + 63) / 64 * 64);
  } else {
    m.scales = reinterpret_cast<uint16_t*>(scales);
  }
  m.rows = size.rows;
  m.cols = size.cols;
  return m;
}

}  // namespace

bool bench_dense(const Options& options, Report report, void* context) {
  if (std::find(options.kernels.begin(), options.kernels.end(), "gemm_q8_dense") == options.kernels.end()) return true;
  const Kernels& kernels = kernels_for(options.isa);
  for (int bits : {4, 6, 8}) {
    for (const DenseSize& size : {DenseSize{2048, 2048}, DenseSize{4096, 2048}, DenseSize{2048, 4096}}) {
      const Parts parts = parts_of(size, bits);
      const size_t count = (kColdBytes + parts.held() - 1) / parts.held();
      const int most = *std::max_element(options.tokens.begin(), options.tokens.end());
      const size_t inputs = static_cast<size_t>(most) * size.cols, outputs = static_cast<size_t>(most) * size.rows;
      auto weights = AlignedBuffer::allocate(count * parts.held(), nullptr, "benchmark", true);
      auto other = AlignedBuffer::allocate(inputs * 4 + inputs * 5 / 4 + outputs * 4, nullptr, "benchmark", true);
      if (!weights.ok() || !other.ok()) {
        std::fprintf(stderr, "Cannot hold %zu dense matrices of %zu bytes: no memory\n", count, parts.held());
        return false;
      }
      Random random(bits);
      // Bytes below 64 are finite halves too.
      uint64_t* words = weights.value().as<uint64_t>();
      for (size_t i = 0; i < count * parts.held() / 8; ++i) words[i] = random.next() & 0x3f3f3f3f3f3f3f3full;
      float* x = other.value().as<float>();
      float* y = x + inputs;
      float* scale = y + outputs;
      int32_t* sum = reinterpret_cast<int32_t*>(scale + inputs / kGroup);
      int8_t* q = reinterpret_cast<int8_t*>(sum + inputs / kGroup);
      for (size_t i = 0; i < inputs; ++i) x[i] = static_cast<float>(random.between(0, 2000)) / 1000.0f - 1.0f;
      kernels.quantize_q8(x, static_cast<int>(inputs), q, scale, sum);
      for (int threads : options.threads) {
        ThreadPool pool(threads);
        for (int tokens : options.tokens) {
          for (bool cold : options.cold) {
            size_t at = 0;
            const int blocks = size.rows / kTileRows, grain = std::max(1, blocks / (threads * 8));
            const double s = seconds_per_call(options.quick, [&] {
              const DenseMatrix w = matrix_at(weights.value().data() + at * parts.held(), size, bits);
              pool.for_each(blocks, grain, [&](int begin, int end, int) {
                kernels.gemm_q8_dense(w, {q, scale, sum, size.cols}, tokens, begin * kTileRows, end * kTileRows, y,
                                      size.rows);
              });
              if (cold) at = (at + 1) % count;
            });
            const double ops = 2.0 * size.rows * size.cols * tokens;
            report({"gemm_q8_dense", isa_name(options.isa), "dense", bits, tokens, size.rows, size.cols, threads, cold,
                    static_cast<double>(parts.read()) / s / 1e9, ops / s / 1e9},
                   context);
          }
        }
      }
    }
  }
  return true;
}

}  // namespace moestro::bench
