// The read queue over a bounded pool of threads that block in preadv(): where io_uring is missing or forbidden.
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "native/io/disk_file.h"
#include "native/io/queue_core.h"

namespace moestro {
namespace {

class PreadQueue final : public QueueCore {
 public:
  PreadQueue(const ReadQueueOptions& options, std::unique_ptr<DiskFile> file)
      : QueueCore(options, file->direct()), file_(std::move(file)) {
    waiting_.reserve(static_cast<size_t>(part_count()));
    ended_.reserve(static_cast<size_t>(part_count()));
    taken_.reserve(static_cast<size_t>(part_count()));
  }

  ~PreadQueue() override {
    drain();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  // Fewer threads than asked for where the system refuses some; IO_ERROR where it refuses all.
  Status start_threads(int count) {
    try {
      for (int i = 0; i < count; ++i) threads_.emplace_back([this] { read_loop(); });
    } catch (const std::system_error& refusal) {
      if (threads_.empty()) return Status("IO_ERROR", std::string("Cannot start a thread to read: ") + refusal.what());
    }
    return Status();
  }

  const char* backend_name() const override { return "pread"; }

 protected:
  void start(int index) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      waiting_.push_back(index);
    }
    work_.notify_one();
  }

  void reap(bool may_wait) override {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (may_wait && in_flight() > 0) done_.wait(lock, [this] { return !ended_.empty(); });
      std::swap(ended_, taken_);
    }
    for (const auto& [index, result] : taken_) part_ended(index, result);
    taken_.clear();
  }

  uint64_t file_bytes() const override { return file_->size(); }

 private:
  // The most urgent of the parts handed over, the oldest among equals. A thread owns a part from here until it has
  // put it into ended_; the mutex carries the part's fields across.
  int take_waiting() {
    auto first = std::min_element(waiting_.begin(), waiting_.end(),
                                  [this](int a, int b) { return part(a).priority < part(b).priority; });
    const int index = *first;
    waiting_.erase(first);
    return index;
  }

  void read_loop() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      work_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
      if (stop_) return;
      const int index = take_waiting();
      lock.unlock();
      const Part& p = part(index);
      const ssize_t got =
          preadv(file_->descriptor(), p.vectors.data(), p.vector_count, static_cast<off_t>(p.file_offset));
      const int64_t result = got < 0 ? -static_cast<int64_t>(errno) : got;
      if (got > 0) file_->forget(p.file_offset, static_cast<uint64_t>(got));
      lock.lock();
      ended_.emplace_back(index, result);
      done_.notify_one();
    }
  }

  std::unique_ptr<DiskFile> file_;
  std::mutex mutex_;
  std::condition_variable work_, done_;
  std::vector<int> waiting_;                    // parts to read
  std::vector<std::pair<int, int64_t>> ended_;  // parts read, with their results
  std::vector<std::pair<int, int64_t>> taken_;  // the engine thread's half of a double buffer
  std::vector<std::thread> threads_;
  bool stop_ = false;
};

}  // namespace

Result<std::unique_ptr<ReadQueue>> make_pread_queue(const ReadQueueOptions& options) {
  auto file = DiskFile::open(options.path, options.direct);
  if (!file.ok()) return file.status();
  auto queue = std::make_unique<PreadQueue>(options, std::move(file.value()));
  const int threads = std::min(options.pread_threads, options.queue_depth);
  if (Status status = queue->start_threads(threads); !status.ok()) return status;
  return std::unique_ptr<ReadQueue>(std::move(queue));
}

}  // namespace moestro
