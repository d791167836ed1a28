// The read queue over bytes in memory, with latency, short reads and errors drawn from a seed.
//
// Time is a number that poll() and wait() push forward, so a run takes no longer than its copying and the same calls
// with the same seed end in the same order. Memory is written when a part completes, never earlier, as with a disk.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "native/base/random.h"
#include "native/io/disk_file.h"
#include "native/io/queue_core.h"

namespace moestro {
namespace {

class FakeQueue final : public QueueCore {
 public:
  explicit FakeQueue(const ReadQueueOptions& options)
      : QueueCore(options, options.direct), disk_(options.fake), random_(options.fake.seed) {
    disk_.latency_max_us = std::max(disk_.latency_max_us, disk_.latency_min_us);
  }
  ~FakeQueue() override { drain(); }

  const char* backend_name() const override { return "fake"; }

 protected:
  void start(int index) override {
    const uint64_t due = clock_ns_ + 1000 * random_.between(disk_.latency_min_us, disk_.latency_max_us);
    pending_.push_back(Pending{due, ++order_, index});
  }

  // Without waiting, the clock moves by a quarter of the longest latency: who only polls gets there too.
  void reap(bool may_wait) override {
    if (pending_.empty()) return;
    if (may_wait) {
      clock_ns_ = std::max(clock_ns_, first_due()->due_ns);
    } else {
      clock_ns_ += random_.between(0, 250 * uint64_t{disk_.latency_max_us});
    }
    // Parts that start while this loop runs (the rest of a short read) are due later and may end here all the same.
    while (!pending_.empty() && first_due()->due_ns <= clock_ns_) {
      const auto first = first_due();
      const int index = first->index;
      pending_.erase(first);
      part_ended(index, read(part(index)));
    }
  }

  uint64_t file_bytes() const override { return disk_.content.size(); }
  uint64_t now_ns() const override { return clock_ns_; }

 private:
  struct Pending {
    uint64_t due_ns, order;
    int index;
  };

  std::vector<Pending>::iterator first_due() {
    return std::min_element(pending_.begin(), pending_.end(), [](const Pending& a, const Pending& b) {
      return std::pair(a.due_ns, a.order) < std::pair(b.due_ns, b.order);
    });
  }

  // As strict as a disk: also about parts that resume a short read.
  static bool is_aligned(const Part& p) {
    uint64_t bits = p.file_offset;
    for (int i = 0; i < p.vector_count; ++i) {
      bits |= reinterpret_cast<uintptr_t>(p.vectors[i].iov_base) | p.vectors[i].iov_len;
    }
    return bits % kDirectAlignment == 0;
  }

  int64_t read(const Part& p) {
    if (direct() && !is_aligned(p)) return -EINVAL;
    for (const auto& [begin, end] : disk_.bad_ranges) {
      if (p.file_offset < end && begin < p.file_offset + p.bytes) return -EIO;
    }
    if (p.file_offset >= disk_.content.size()) return 0;
    uint64_t bytes = std::min<uint64_t>(p.bytes, disk_.content.size() - p.file_offset);
    if (random_.happens(disk_.short_read_share)) bytes = random_.between(1, bytes);
    uint64_t copied = 0;
    for (int i = 0; i < p.vector_count && copied < bytes; ++i) {
      const uint64_t run = std::min<uint64_t>(p.vectors[i].iov_len, bytes - copied);
      std::memcpy(p.vectors[i].iov_base, disk_.content.data() + p.file_offset + copied, run);
      copied += run;
    }
    return static_cast<int64_t>(bytes);
  }

  FakeDisk disk_;
  Random random_;
  std::vector<Pending> pending_;
  uint64_t clock_ns_ = 0;
  uint64_t order_ = 0;
};

}  // namespace

Result<std::unique_ptr<ReadQueue>> make_fake_queue(const ReadQueueOptions& options) {
  if (!(options.fake.short_read_share >= 0.0 && options.fake.short_read_share < 1.0)) {
    return Status("INVALID_ARGUMENT", "Cannot create the fake disk: got a share of short reads of " +
                                          std::to_string(options.fake.short_read_share) + ", needed [0, 1)");
  }
  return std::unique_ptr<ReadQueue>(std::make_unique<FakeQueue>(options));
}

}  // namespace moestro
