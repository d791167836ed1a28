// A fixed pool of pinned threads in which the calling thread computes along.
//
// run() splits [0, count) into pieces of `grain` items (the last may be shorter) which the threads take in turn from
// one atomic counter, and returns when all are done. Which thread takes which piece is not fixed, so tasks write
// disjoint outputs and never sum across pieces: results then cannot depend on the number of threads.
// One run() at a time, from the thread that made the pool. Tasks do not throw, allocate or block.
// Workers spin for a few microseconds after a run, then sleep on a futex: an idle engine takes no CPU.
#pragma once
#include <memory>
#include <type_traits>

namespace moestro {

class ThreadPool {
 public:
  using Task = void (*)(void* context, int begin, int end, int worker);  // worker in [0, threads())

  // threads >= 1 counts the caller; 1 makes no thread at all. Where the system refuses one, there are fewer.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  // What the calling thread does after each piece that it ran itself, while others may still compute: to look after
  // reads, say, that would wait for the end of a long run. Must be short, and must not run anything on the pool.
  void set_between_pieces(void (*call)(void* context), void* context);
  void run(int count, int grain, Task task, void* context);

  // The same for a callable f(begin, end, worker).
  template <typename F>
  void for_each(int count, int grain, F&& f) {
    using Fn = std::remove_reference_t<F>;
    run(
        count, grain, [](void* c, int begin, int end, int worker) { (*static_cast<Fn*>(c))(begin, end, worker); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moestro
