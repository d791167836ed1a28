#include "native/kernels/bench/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "native/memory/memory.h"

namespace moestro::bench {
namespace {

constexpr size_t kBufferBytes = size_t{2} << 30;
constexpr size_t kQuickBufferBytes = size_t{1} << 30;
constexpr size_t kPieceBytes = size_t{16} << 20;

// What was read is added up and lands here, so that no read can be left out.
std::atomic<uint64_t> sink{0};

// Vectors as the compiler's own type: `Bytes` wide, added lane by lane.
template <int Bytes>
struct Wide {
  using type __attribute__((vector_size(Bytes))) = uint64_t;
};

// Reads `bytes` (a multiple of kStreams x 256) as `kStreams` runs side by side, each line asked for `kAhead` bytes
// before it is read (0: not at all).
#define MOESTRO_READ_LOOP(name, target_set, width)                                                                  \
  template <int kStreams, int kAhead>                                                                               \
  target_set uint64_t name(const uint8_t* from, size_t bytes) {                                                     \
    using V = Wide<width>::type;                                                                                    \
    const size_t run = bytes / kStreams;                                                                            \
    V sums[4] = {};                                                                                                 \
    for (size_t at = 0; at < run; at += 256) {                                                                      \
      _Pragma("GCC unroll 8") for (int s = 0; s < kStreams; ++s) {                                                  \
        const uint8_t* p = from + s * run + at;                                                                     \
        _Pragma("GCC unroll 4") for (int i = 0; i < 256 && kAhead > 0; i += 64) __builtin_prefetch(p + i + kAhead); \
        _Pragma("GCC unroll 16") for (int i = 0; i < 256 / width; ++i) sums[i % 4] +=                               \
            *reinterpret_cast<const V*>(p + i * width);                                                             \
      }                                                                                                             \
    }                                                                                                               \
    const V all = sums[0] + sums[1] + sums[2] + sums[3];                                                            \
    uint64_t total = 0;                                                                                             \
    for (int i = 0; i < width / 8; ++i) total += all[i];                                                            \
    return total;                                                                                                   \
  }

#if defined(__x86_64__)
MOESTRO_READ_LOOP(read_avx512, __attribute__((target("avx512f"))), 64)
MOESTRO_READ_LOOP(read_avx2, __attribute__((target("avx2"))), 32)
#endif
MOESTRO_READ_LOOP(read_plain, , 16)

using ReadLoop = uint64_t (*)(const uint8_t*, size_t);
struct ReadLoops {
  ReadLoop ways[7];
};
#define MOESTRO_READ_WAYS(name)                                                                    \
  {                                                                                                \
    { name<1, 0>, name<2, 0>, name<4, 0>, name<8, 0>, name<1, 512>, name<2, 1024>, name<4, 1024> } \
  }

ReadLoops read_loops(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return MOESTRO_READ_WAYS(read_avx2);
  if (isa > Isa::avx2) return MOESTRO_READ_WAYS(read_avx512);
#endif
  return MOESTRO_READ_WAYS(read_plain);
}

constexpr int kDotRounds = 200000;

// The loops are assembly: a compiler would see that the factors never change, and might keep sums in memory. A latency
// of 5 cycles at two instructions a cycle wants at least 10 independent sums.
#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vnni"))) uint64_t dots_avx512() {
  uint64_t rounds = kDotRounds;
#define MOESTRO_DOT(n) "vpdpbusd %%zmm0, %%zmm0, %%zmm" #n "\n\t"
  asm volatile("1:\n\t" MOESTRO_DOT(16) MOESTRO_DOT(17) MOESTRO_DOT(18) MOESTRO_DOT(19) MOESTRO_DOT(20) MOESTRO_DOT(21)
                   MOESTRO_DOT(22) MOESTRO_DOT(23) MOESTRO_DOT(24) MOESTRO_DOT(25) MOESTRO_DOT(26) MOESTRO_DOT(27)
                       MOESTRO_DOT(28) MOESTRO_DOT(29) MOESTRO_DOT(30) MOESTRO_DOT(31) "dec %0\n\tjnz 1b"
               : "+r"(rounds)
               :
               : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26",
                 "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "cc");
#undef MOESTRO_DOT
  return rounds;
}
constexpr double kDotOps512 = 64.0 * 2 * 16 * kDotRounds;

__attribute__((target("avx2"))) uint64_t dots_avx2() {
  uint64_t rounds = kDotRounds;
  // ymm13 to ymm15 are the factors; each sum has a register of its own for the pairs.
#define MOESTRO_DOT(sum, pairs)                     \
  "vpmaddubsw %%ymm13, %%ymm14, %%ymm" #pairs       \
  "\n\t"                                            \
  "vpmaddwd %%ymm15, %%ymm" #pairs ", %%ymm" #pairs \
  "\n\t"                                            \
  "vpaddd %%ymm" #pairs ", %%ymm" #sum ", %%ymm" #sum "\n\t"
  asm volatile("1:\n\t" MOESTRO_DOT(0, 6) MOESTRO_DOT(1, 7) MOESTRO_DOT(2, 8) MOESTRO_DOT(3, 9) MOESTRO_DOT(4, 10)
                   MOESTRO_DOT(5, 11) "dec %0\n\tjnz 1b"
               : "+r"(rounds)
               :
               : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                 "xmm13", "xmm14", "xmm15", "cc");
#undef MOESTRO_DOT
  return rounds;
}
constexpr double kDotOps256 = 32.0 * 2 * 6 * kDotRounds;
#elif defined(__aarch64__)
__attribute__((target("arch=armv8.2-a+dotprod"))) uint64_t dots_neon() {
  uint64_t rounds = kDotRounds;
#define MOESTRO_DOT(n) "sdot v" #n ".4s, v0.16b, v1.16b\n\t"
  asm volatile("1:\n\t" MOESTRO_DOT(16) MOESTRO_DOT(17) MOESTRO_DOT(18) MOESTRO_DOT(19) MOESTRO_DOT(20) MOESTRO_DOT(21)
                   MOESTRO_DOT(22) MOESTRO_DOT(23) MOESTRO_DOT(24) MOESTRO_DOT(25) MOESTRO_DOT(26) MOESTRO_DOT(27)
                       MOESTRO_DOT(28) MOESTRO_DOT(29) MOESTRO_DOT(30) MOESTRO_DOT(31) "subs %0, %0, #1\n\tb.ne 1b"
               : "+r"(rounds)
               :
               : "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29",
                 "v30", "v31", "cc");
#undef MOESTRO_DOT
  return rounds;
}
constexpr double kDotOps128 = 16.0 * 2 * 16 * kDotRounds;
#endif

struct DotLoop {
  uint64_t (*run)();
  double ops;
};

DotLoop dot_loop(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return {dots_avx2, kDotOps256};
  if (isa > Isa::avx2) return {dots_avx512, kDotOps512};
#elif defined(__aarch64__)
  if (isa == Isa::neon) return {dots_neon, kDotOps128};
#endif
  return {nullptr, 0};
}

}  // namespace

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(double* values, int count) {
  std::sort(values, values + count);
  return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

double dram_read_gbps(ThreadPool& pool, Isa isa, bool quick) {
  const size_t bytes = quick ? kQuickBufferBytes : kBufferBytes;
  auto buffer = AlignedBuffer::allocate(bytes, nullptr, "benchmark", true);
  if (!buffer.ok()) return 0;
  // Zeros alone could be kept apart by the memory controller of some machines.
  uint64_t* words = buffer.value().as<uint64_t>();
  for (size_t i = 0; i < bytes / 8; i += 8) words[i] = i * 0x9e3779b97f4a7c15ull;
  const int passes = quick ? 3 : 5;
  double best = 0;
  for (const ReadLoop loop : read_loops(isa).ways) {
    double rates[8];
    for (int pass = 0; pass < passes; ++pass) {
      const double from = now_s();
      pool.for_each(static_cast<int>(bytes / kPieceBytes), 1, [&](int begin, int end, int) {
        sink += loop(buffer.value().data() + begin * kPieceBytes, (end - begin) * kPieceBytes);
      });
      rates[pass] = static_cast<double>(bytes) / (now_s() - from) / 1e9;
    }
    best = std::max(best, median(rates, passes));
  }
  return best;
}

double int8_peak_gops(ThreadPool& pool, Isa isa) {
  const DotLoop loop = dot_loop(isa);
  if (loop.run == nullptr) return 0;
  constexpr int kPiecesPerThread = 8;
  const int pieces = kPiecesPerThread * pool.threads();
  double best = 0;
  for (int pass = 0; pass < 7; ++pass) {
    const double from = now_s();
    pool.for_each(pieces, 1, [&](int begin, int end, int) {
      for (int i = begin; i < end; ++i) sink += loop.run();
    });
    best = std::max(best, pieces * loop.ops / (now_s() - from) / 1e9);
  }
  return best;
}

}  // namespace moestro::bench
