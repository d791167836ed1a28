// What a run of the benchmark is asked for, and the rows that it gives.
#pragma once
#include <string>
#include <vector>

#include "native/base/cpu.h"
#include "native/base/thread_pool.h"
#include "native/kernels/kernels.h"

namespace moestro::bench {

struct Shape {
  std::string name;
  int hidden, inner;
};

struct Options {
  std::vector<int> levels, tokens, threads;
  std::vector<Shape> shapes;
  std::vector<bool> cold;
  std::vector<std::string> kernels;  // of kKernelNames
  Isa isa;
  bool quick = false;
};

// expert: gate, up, activation and down of whole experts, as the engine runs them; gemm_q8_planes: one matrix.
constexpr const char* kKernelNames[] = {"expert", "gemm_q8_planes", "gemm_q8_dense"};

// One measurement. tokens: for each expert, or for the dense matrix. rows, cols: of the matrix; for `expert` its inner
// and its hidden size. gbps: bytes of weights and scales read at this level, in 1e9 a second; gops: two operations a
// multiply-add.
struct Row {
  std::string kernel, isa, shape;
  int level, tokens, rows, cols, threads;
  bool cold;
  double gbps, gops;
};

using Report = void (*)(const Row& row, void* context);

// Both report row after row. False, with a line on stderr, where memory is missing or a result is not the scalar one's.
bool bench_experts(const Options& options, Report report, void* context);
bool bench_dense(const Options& options, Report report, void* context);

// Seconds that one call of `step` takes: the median of some samples, each of as many calls as fill a few ms.
template <typename Step>
double seconds_per_call(bool quick, Step&& step);

}  // namespace moestro::bench

#include "native/kernels/bench/machine.h"

namespace moestro::bench {

template <typename Step>
double seconds_per_call(bool quick, Step&& step) {
  const double sample_s = quick ? 0.008 : 0.025;
  const int samples = quick ? 5 : 9;
  double rates[16];
  step();
  for (int i = 0; i < samples; ++i) {
    const double from = now_s();
    int calls = 0;
    double passed;
    do {
      step();
      ++calls;
      passed = now_s() - from;
    } while (passed < sample_s);
    rates[i] = passed / calls;
  }
  return median(rates, samples);
}

}  // namespace moestro::bench
