// The pool's clockwork: one 64-bit word tells which run is on and how many of its pieces nobody has taken yet.
//
//   work_ = [ run number : 32 | pieces left : 32 ]
//
// A thread takes a piece by lowering "pieces left" with a compare-and-swap. That can only succeed while the run it
// looked at still has pieces, hence before run() returns, hence while the job's fields are still those of that run:
// a worker that comes late can neither take a piece twice nor read half of the next job. So run() waits for pieces,
// never for workers, and a worker that the system has not scheduled yet delays nobody.
#include "native/base/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <chrono>
#include <climits>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace moestro {
namespace {

// Waking a sleeper costs the caller one system call and the sleeper 5 to 50 us on a virtual machine, so workers wait
// awake for as long as the next run of the same layer usually takes to come, and no longer.
constexpr std::chrono::microseconds kSpin{50};
// A pause takes 10 to 140 cycles depending on the CPU; the clock is read once per this many.
constexpr int kPausesPerLook = 16;
// How long the caller waits awake for the last pieces before it starts to give its core away between looks.
constexpr int kLooksBeforeYield = 256;
// The caller may wander from core to core; workers make room for it at most this often.
constexpr std::chrono::milliseconds kStepAsideInterval{1};

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void futex_wait(std::atomic<uint32_t>* word, uint32_t expected) {
  // EAGAIN (the word has changed) and EINTR both mean: look again, which every caller of this does anyway.
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake(std::atomic<uint32_t>* word, int sleepers) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE_PRIVATE, sleepers, nullptr, nullptr, 0);
}

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "the futex word must be the atomic itself");

uint32_t pieces_left(uint64_t work) { return static_cast<uint32_t>(work); }

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  // Fails on machines with more CPUs than cpu_set_t holds; then nothing is pinned.
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
  }
  return cpus;
}

// A refusal (a sandbox may forbid it) costs speed only, so it is not reported.
void pin(pthread_t thread, int cpu) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  CPU_SET(cpu, &mask);
  pthread_setaffinity_np(thread, sizeof mask, &mask);
}

}  // namespace

struct ThreadPool::State {
  alignas(64) std::atomic<uint64_t> work{0};
  // The job of the current run. Atomics because a late worker may look while the next job is being written; what it
  // sees then is never used, as its compare-and-swap fails.
  alignas(64) std::atomic<Task> task{nullptr};
  std::atomic<void*> context{nullptr};
  std::atomic<int> count{0};
  std::atomic<int> grain{1};
  std::atomic<uint32_t> pieces{0};
  alignas(64) std::atomic<int64_t> unfinished{0};
  alignas(64) std::atomic<uint32_t> sleepers{0};
  std::atomic<uint32_t> bell{0};
  std::atomic<bool> stop{false};

  int thread_count = 1;
  bool may_spin = true;
  uint32_t run_number = 0;
  std::vector<std::thread> workers;
  std::vector<int> cpu_of_worker;  // parallel to `workers`; empty when nothing is pinned
  int spare_cpu = -1;
  std::chrono::steady_clock::time_point stepped_aside{};
  void (*between)(void*) = nullptr;  // of the caller alone
  void* between_context = nullptr;

  void ran_piece(int worker) {
    if (worker == 0 && between != nullptr) between(between_context);
  }

  // Takes and runs pieces until none is left; returns how many it ran.
  int64_t take_pieces(int worker) {
    int64_t done = 0;
    uint64_t seen = work.load(std::memory_order_acquire);
    while (pieces_left(seen) > 0) {
      const Task run_task = task.load(std::memory_order_relaxed);
      void* const run_context = context.load(std::memory_order_relaxed);
      const int items = count.load(std::memory_order_relaxed);
      const int step = grain.load(std::memory_order_relaxed);
      const uint32_t all = pieces.load(std::memory_order_relaxed);
      if (!work.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      const int64_t begin = static_cast<int64_t>(all - pieces_left(seen)) * step;
      const int64_t end = std::min<int64_t>(items, begin + step);
      run_task(run_context, static_cast<int>(begin), static_cast<int>(end), worker);
      ran_piece(worker);
      ++done;
      seen = work.load(std::memory_order_acquire);
    }
    return done;
  }

  void worker_loop(int worker) {
    while (!stop.load(std::memory_order_acquire)) {
      const int64_t done = take_pieces(worker);
      if (done > 0) unfinished.fetch_sub(done, std::memory_order_acq_rel);
      if (may_spin && spin_for_work()) continue;
      sleep_for_work();
    }
  }

  bool spin_for_work() {
    const auto until = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < kPausesPerLook; ++i) {
        if (pieces_left(work.load(std::memory_order_relaxed)) > 0 || stop.load(std::memory_order_relaxed)) return true;
        pause();
      }
    } while (std::chrono::steady_clock::now() < until);
    return false;
  }

  // Either this thread sees the work that the caller published, or the caller sees this sleeper and rings: both sides
  // write before they read, in one total order.
  void sleep_for_work() {
    const uint32_t heard = bell.load(std::memory_order_seq_cst);
    sleepers.fetch_add(1, std::memory_order_seq_cst);
    if (pieces_left(work.load(std::memory_order_seq_cst)) == 0 && !stop.load(std::memory_order_seq_cst)) {
      futex_wait(&bell, heard);
    }
    sleepers.fetch_sub(1, std::memory_order_seq_cst);
  }

  void ring(int wanted) {
    if (sleepers.load(std::memory_order_seq_cst) == 0) return;
    bell.fetch_add(1, std::memory_order_seq_cst);
    futex_wake(&bell, wanted);
  }

  // A pinned worker cannot leave a core that the caller happens to run on, and the system is slow to move the caller
  // (it is running, so it looks well placed). The worker trades its core for the spare one instead.
  void step_aside() {
    if (cpu_of_worker.empty()) return;
    const int here = sched_getcpu();
    for (size_t i = 0; i < cpu_of_worker.size(); ++i) {
      if (cpu_of_worker[i] != here) continue;
      const auto now = std::chrono::steady_clock::now();
      if (now - stepped_aside < kStepAsideInterval) return;
      stepped_aside = now;
      std::swap(cpu_of_worker[i], spare_cpu);
      pin(workers[i].native_handle(), cpu_of_worker[i]);
      return;
    }
  }

  void wait_for_pieces() {
    int looks = 0;
    while (unfinished.load(std::memory_order_acquire) > 0) {
      if (++looks < kLooksBeforeYield) {
        pause();
      } else {
        sched_yield();
      }
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.thread_count = std::max(1, threads);
  if (s.thread_count == 1) return;
  const std::vector<int> cpus = allowed_cpus();
  const bool enough = static_cast<int>(cpus.size()) >= s.thread_count;
  s.may_spin = enough;  // a spinning worker would keep its own colleagues off the core
  s.workers.reserve(s.thread_count - 1);
  for (int worker = 1; worker < s.thread_count; ++worker) {
    try {
      s.workers.emplace_back([&s, worker] { s.worker_loop(worker); });
    } catch (const std::system_error&) {
      // A limit on processes or memory: the threads there are do all the work.
      s.thread_count = worker;
    }
  }
  if (!enough) return;
  s.spare_cpu = cpus[0];
  for (int worker = 1; worker < s.thread_count; ++worker) {
    s.cpu_of_worker.push_back(cpus[worker]);
    pin(s.workers[worker - 1].native_handle(), cpus[worker]);
  }
}

ThreadPool::~ThreadPool() {
  State& s = *state_;
  s.stop.store(true, std::memory_order_seq_cst);
  s.ring(INT_MAX);
  for (std::thread& worker : s.workers) worker.join();
}

int ThreadPool::threads() const { return state_->thread_count; }

void ThreadPool::set_between_pieces(void (*call)(void* context), void* context) {
  state_->between = call;
  state_->between_context = context;
}

void ThreadPool::run(int count, int grain, Task task, void* context) {
  if (count <= 0) return;
  assert(grain > 0);
  State& s = *state_;
  const int64_t pieces = (static_cast<int64_t>(count) + grain - 1) / grain;
  if (s.thread_count == 1 || pieces == 1) {
    for (int64_t begin = 0; begin < count; begin += grain) {
      task(context, static_cast<int>(begin), static_cast<int>(std::min<int64_t>(count, begin + grain)), 0);
      s.ran_piece(0);
    }
    return;
  }
  s.step_aside();
  s.task.store(task, std::memory_order_relaxed);
  s.context.store(context, std::memory_order_relaxed);
  s.count.store(count, std::memory_order_relaxed);
  s.grain.store(grain, std::memory_order_relaxed);
  s.pieces.store(static_cast<uint32_t>(pieces), std::memory_order_relaxed);
  s.unfinished.store(pieces, std::memory_order_relaxed);
  s.work.store((static_cast<uint64_t>(++s.run_number) << 32) | static_cast<uint64_t>(pieces),
               std::memory_order_seq_cst);
  s.ring(static_cast<int>(std::min<int64_t>(pieces, s.thread_count) - 1));
  const int64_t done = s.take_pieces(0);
  s.unfinished.fetch_sub(done, std::memory_order_acq_rel);
  s.wait_for_pieces();
}

}  // namespace moestro
