// The read queue over io_uring, by its three system calls and two shared rings; no library between.
//
// In flight never exceeds the queue depth and the submission ring has at least that many entries, so neither ring can
// overflow. Without SQPOLL the kernel looks at the submission ring only inside io_uring_enter(), so entries that it has
// not accepted can be taken back. Source: io_uring_setup(2), io_uring_enter(2).
#include <linux/io_uring.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "native/io/disk_file.h"
#include "native/io/queue_core.h"

namespace moestro {
namespace {

// The kernel may be short of memory for requests while all others are in flight; it is asked again this many times.
constexpr int kEnterRetriesMax = 1000;

int io_uring_setup(unsigned entries, io_uring_params* params) {
  return static_cast<int>(syscall(SYS_io_uring_setup, entries, params));
}

int io_uring_enter(int ring, unsigned to_submit, unsigned min_complete, unsigned flags) {
  return static_cast<int>(syscall(SYS_io_uring_enter, ring, to_submit, min_complete, flags, nullptr, 0));
}

// A shared mapping of one part of the ring.
class RingMapping {
 public:
  RingMapping() = default;
  RingMapping(const RingMapping&) = delete;
  RingMapping& operator=(const RingMapping&) = delete;
  ~RingMapping() {
    if (base_ != nullptr) munmap(base_, bytes_);
  }
  bool map(int ring, size_t bytes, off_t offset) {
    void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);
    if (base == MAP_FAILED) return false;
    base_ = base;
    bytes_ = bytes;
    return true;
  }
  template <typename T>
  T* at(uint32_t offset) const {
    return reinterpret_cast<T*>(static_cast<uint8_t*>(base_) + offset);
  }

 private:
  void* base_ = nullptr;
  size_t bytes_ = 0;
};

class Ring {
 public:
  Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() {
    if (descriptor_ >= 0) close(descriptor_);
  }

  Status open(unsigned entries) {
    io_uring_params params;
    std::memset(&params, 0, sizeof params);
    descriptor_ = io_uring_setup(entries, &params);
    if (descriptor_ < 0) return unavailable(std::strerror(errno));  // ENOSYS, EPERM, ENOMEM, ...
    // Both since Linux 5.5; what is older has other faults too.
    constexpr unsigned kNeeded = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP;
    if ((params.features & kNeeded) != kNeeded) {
      return unavailable("got features " + std::to_string(params.features) + ", needed a single mapping and no drops");
    }
    const size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    const size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
    if (!rings_.map(descriptor_, std::max(sq_bytes, cq_bytes), IORING_OFF_SQ_RING) ||
        !entries_.map(descriptor_, params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES)) {
      return unavailable(std::strerror(errno));
    }
    sq_tail_ = rings_.at<unsigned>(params.sq_off.tail);
    sq_mask_ = *rings_.at<unsigned>(params.sq_off.ring_mask);
    sq_flags_ = rings_.at<unsigned>(params.sq_off.flags);
    sq_array_ = rings_.at<unsigned>(params.sq_off.array);
    cq_head_ = rings_.at<unsigned>(params.cq_off.head);
    cq_tail_ = rings_.at<unsigned>(params.cq_off.tail);
    cq_mask_ = *rings_.at<unsigned>(params.cq_off.ring_mask);
    cqes_ = rings_.at<io_uring_cqe>(params.cq_off.cqes);
    return Status();
  }

  int unsent() const { return static_cast<int>(unsent_); }

  // `vectors` must stay in place until the completion.
  void push_readv(int file, const iovec* vectors, unsigned count, uint64_t offset, uint64_t user_data) {
    const unsigned tail = *sq_tail_;
    io_uring_sqe* sqe = entries_.at<io_uring_sqe>(0) + (tail & sq_mask_);
    std::memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_READV;
    sqe->fd = file;
    sqe->addr = reinterpret_cast<uintptr_t>(vectors);
    sqe->len = count;
    sqe->off = offset;
    sqe->user_data = user_data;
    sq_array_[tail & sq_mask_] = tail & sq_mask_;
    std::atomic_ref<unsigned>(*sq_tail_).store(tail + 1, std::memory_order_release);
    ++unsent_;
  }

  // Submits what is unsent and waits for `min_complete` completions; 0 or an errno.
  int enter(unsigned min_complete) {
    const unsigned flags = min_complete > 0 || overflowed() ? IORING_ENTER_GETEVENTS : 0;
    const int accepted = io_uring_enter(descriptor_, unsent_, min_complete, flags);
    if (accepted < 0) return errno;
    unsent_ -= static_cast<unsigned>(accepted);
    return 0;
  }

  // Takes back the newest of the entries that the kernel has not accepted; returns its user data.
  uint64_t take_back_last() {
    const unsigned tail = *sq_tail_ - 1;
    std::atomic_ref<unsigned>(*sq_tail_).store(tail, std::memory_order_release);
    --unsent_;
    return (entries_.at<io_uring_sqe>(0) + (tail & sq_mask_))->user_data;
  }

  bool pop(uint64_t* user_data, int32_t* result) {
    const unsigned head = *cq_head_;
    if (head == std::atomic_ref<unsigned>(*cq_tail_).load(std::memory_order_acquire)) return false;
    const io_uring_cqe& cqe = cqes_[head & cq_mask_];
    *user_data = cqe.user_data;
    *result = cqe.res;
    std::atomic_ref<unsigned>(*cq_head_).store(head + 1, std::memory_order_release);
    return true;
  }

  // Completions that found the ring full wait in the kernel until it is entered. It cannot happen (see the top), and
  // looking costs one load.
  bool overflowed() const {
    return (std::atomic_ref<unsigned>(*sq_flags_).load(std::memory_order_relaxed) & IORING_SQ_CQ_OVERFLOW) != 0;
  }

 private:
  static Status unavailable(const std::string& found) {
    return Status("IO_UNAVAILABLE", "Cannot set up io_uring: " + found);
  }

  int descriptor_ = -1;
  RingMapping rings_, entries_;
  unsigned *sq_tail_ = nullptr, *sq_flags_ = nullptr, *sq_array_ = nullptr;
  unsigned *cq_head_ = nullptr, *cq_tail_ = nullptr;
  unsigned sq_mask_ = 0, cq_mask_ = 0;
  io_uring_cqe* cqes_ = nullptr;
  unsigned unsent_ = 0;
};

class IoUringQueue final : public QueueCore {
 public:
  IoUringQueue(const ReadQueueOptions& options, std::unique_ptr<DiskFile> file)
      : QueueCore(options, file->direct()), file_(std::move(file)) {}
  ~IoUringQueue() override { drain(); }

  Status open() { return ring_.open(static_cast<unsigned>(queue_depth())); }
  const char* backend_name() const override { return "io_uring"; }

 protected:
  void start(int index) override {
    const Part& p = part(index);
    ring_.push_readv(file_->descriptor(), p.vectors.data(), static_cast<unsigned>(p.vector_count), p.file_offset,
                     static_cast<uint64_t>(index));
  }

  void flush() override {
    // EINTR, EAGAIN and EBUSY leave the entries in the ring: the next poll() or wait() tries again.
    if (ring_.unsent() > 0) handle_refusal(ring_.enter(0));
  }

  void reap(bool may_wait) override {
    if (take_completions() || !may_wait || in_flight() == 0) return;
    // Nothing is with the kernel when all that is in flight is still unsent: then there is nothing to wait for.
    const int refused = ring_.enter(in_flight() > ring_.unsent() ? 1 : 0);
    if (refused == EAGAIN && in_flight() == ring_.unsent()) sched_yield();
    handle_refusal(refused);
    take_completions();
  }

  uint64_t file_bytes() const override { return file_->size(); }

 private:
  bool take_completions() {
    bool any = false;
    uint64_t index;
    int32_t result;
    while (ring_.pop(&index, &result)) {
      any = true;
      const uint64_t offset = part(static_cast<int>(index)).file_offset;
      if (result > 0) file_->forget(offset, static_cast<uint64_t>(result));
      part_ended(static_cast<int>(index), result);
    }
    return any;
  }

  void handle_refusal(int error) {
    switch (error) {
      case 0:
        refusals_ = 0;
        return;
      case EINTR:
        return;
      case EAGAIN:  // no memory for the request
      case EBUSY:   // completions have to be taken first
        if (++refusals_ <= kEnterRetriesMax) return;
        break;
      default:
        break;
    }
    // The kernel will not have them: they end as failed, and the queue goes on.
    refusals_ = 0;
    while (ring_.unsent() > 0) part_ended(static_cast<int>(ring_.take_back_last()), -EIO);
  }

  std::unique_ptr<DiskFile> file_;
  Ring ring_;
  int refusals_ = 0;
};

}  // namespace

Result<std::unique_ptr<ReadQueue>> make_io_uring_queue(const ReadQueueOptions& options) {
  auto file = DiskFile::open(options.path, options.direct);
  if (!file.ok()) return file.status();
  auto queue = std::make_unique<IoUringQueue>(options, std::move(file.value()));
  if (Status status = queue->open(); !status.ok()) return status;
  return std::unique_ptr<ReadQueue>(std::move(queue));
}

}  // namespace moestro
