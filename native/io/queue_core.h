// What every backend of the read queue shares: the three queues, the slots of requests in flight, resumption after
// short reads, checksums, cancellation and counters. A backend only starts parts and reports how they ended.
#pragma once
#include <sys/uio.h>

#include <vector>

#include "native/io/read_queue.h"

namespace moestro {

// First in, first out; grows, never shrinks, and keeps its memory.
class RequestFifo {
 public:
  bool empty() const { return count_ == 0; }
  size_t size() const { return count_; }
  const ReadRequest& front() const { return ring_[head_]; }
  void push(const ReadRequest& request);
  void pop();
  bool remove(uint32_t ticket);
  void clear() { head_ = count_ = 0; }

 private:
  std::vector<ReadRequest> ring_;
  size_t head_ = 0, count_ = 0;
};

class QueueCore : public ReadQueue {
 public:
  Status submit(const ReadRequest& request) final;
  bool cancel(uint32_t ticket) final;
  int poll(std::vector<ReadCompletion>* out) final;
  int wait(std::vector<ReadCompletion>* out) final;
  ReadQueueStats stats() const final;
  bool direct() const final { return direct_; }

 protected:
  // A request in flight. The backend reads `vectors` from `part_offset` on, and nothing else.
  struct Slot {
    ReadRequest request;
    uint64_t total = 0;       // bytes of the request
    uint64_t reached = 0;     // bytes known to be read
    uint64_t part_begin = 0;  // where the present part starts, in bytes of the request
    uint64_t part_bytes = 0;
    uint64_t part_offset = 0;  // the same in bytes of the file
    uint64_t started_ns = 0, ended_ns = 0;
    int retries = 0;
    int error = 0;
    int vector_count = 0;
    std::array<iovec, kMaxSegments> vectors;
  };

  QueueCore(const ReadQueueOptions& options, bool direct);

  // Begins to read the part that slot `index` describes. It ends with one part_ended(), called inside reap().
  virtual void start(int index) = 0;
  // Hands over to the kernel what start() has gathered.
  virtual void flush() {}
  // Reports parts that have ended; waits for one when `may_wait` and some are in flight.
  virtual void reap(bool may_wait) = 0;
  virtual uint64_t file_bytes() const = 0;
  virtual uint64_t now_ns() const;

  // `result` is the number of bytes read, or -errno.
  void part_ended(int index, int64_t result);
  // For destructors of backends: forgets what is queued and waits until the kernel is done with callers' memory.
  void drain();

  int queue_depth() const { return queue_depth_; }
  int slot_count() const { return static_cast<int>(slots_.size()); }
  Slot& slot(int index) { return slots_[index]; }
  int in_flight() const { return in_flight_; }

 private:
  void prepare_part(Slot* slot, uint64_t begin);
  void begin_part(int index, uint64_t begin);
  void land(int index, int error);
  void pump();
  int deliver(std::vector<ReadCompletion>* out);
  bool touches_fault(const ReadRequest& request, uint64_t bytes) const;
  size_t queued() const;

  const int queue_depth_;
  const bool direct_;
  const std::vector<std::pair<uint64_t, uint64_t>> fault_ranges_;
  std::array<RequestFifo, 3> queues_;  // by priority
  std::vector<Slot> slots_;
  std::vector<int> free_slots_;
  std::vector<int> landed_;  // slots whose request has ended and is not delivered yet
  std::vector<ReadCompletion> cancelled_;
  ReadQueueStats stats_;
  int in_flight_ = 0;
  bool draining_ = false;
};

// Backends; each returns IO_ERROR or IO_UNAVAILABLE as ReadQueue::create() does.
Result<std::unique_ptr<ReadQueue>> make_io_uring_queue(const ReadQueueOptions& options);
Result<std::unique_ptr<ReadQueue>> make_pread_queue(const ReadQueueOptions& options);
Result<std::unique_ptr<ReadQueue>> make_fake_queue(const ReadQueueOptions& options);

}  // namespace moestro
