// What every backend of the read queue shares: the three queues, requests cut into parts, resumption after short reads,
// checksums, cancellation and counters. A backend only starts parts and reports how they ended.
#pragma once
#include <sys/uio.h>

#include <vector>

#include "native/io/read_queue.h"

namespace moestro {

// Indices of requests, first in, first out; grows, never shrinks, and keeps its memory.
class RequestFifo {
 public:
  bool empty() const { return count_ == 0; }
  size_t size() const { return count_; }
  int front() const { return ring_[head_]; }
  void push(int index);
  void pop();
  // The i-th from the front.
  int at(size_t i) const { return ring_[(head_ + i) % ring_.size()]; }
  void remove_at(size_t i);
  void clear() { head_ = count_ = 0; }

 private:
  std::vector<int> ring_;
  size_t head_ = 0, count_ = 0;
};

class QueueCore : public ReadQueue {
 public:
  Status submit(const ReadRequest& request, bool more_follow) final;
  bool cancel(uint32_t ticket) final;
  bool promote(uint32_t ticket, ReadPriority priority) final;
  int poll(std::vector<ReadCompletion>* out) final;
  int wait(std::vector<ReadCompletion>* out) final;
  ReadQueueStats stats() const final;
  bool direct() const final { return direct_; }

 protected:
  // A part of a request, with the kernel. The backend reads `vectors` from `file_offset` on, and nothing else.
  struct Part {
    int request = -1;
    ReadPriority priority = ReadPriority::demand;
    uint64_t begin = 0, end = 0;  // in bytes of the request
    uint64_t reached = 0;         // up to where it is known to be read
    uint64_t from = 0;            // where the present attempt starts: `begin`, or further on after a short read
    uint64_t file_offset = 0;     // the same in bytes of the file
    uint64_t bytes = 0;           // of the present attempt
    int retries = 0;
    int vector_count = 0;
    std::array<iovec, kMaxSegments> vectors;
  };

  QueueCore(const ReadQueueOptions& options, bool direct);

  // Begins to read part `index`. It ends with one part_ended(), called inside reap().
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
  int part_count() const { return static_cast<int>(parts_.size()); }
  Part& part(int index) { return parts_[index]; }
  int in_flight() const { return in_flight_; }

 private:
  // A request from submit() until it is delivered.
  struct Request {
    ReadRequest ask;
    uint64_t total = 0;       // bytes of it
    uint64_t part_bytes = 0;  // of each part but the last
    uint64_t sent = 0;        // bytes handed over, or given up
    uint64_t read = 0;
    int open_parts = 0;
    int error = 0;
    uint64_t started_ns = 0, ended_ns = 0;
  };

  void aim(Part* part, uint64_t from);
  void begin_part(int index, uint64_t from);
  void end_part(int index, int error);
  void land(int request);
  void hand_over(RequestFifo* queue, int depth);
  void pump();
  int deliver(std::vector<ReadCompletion>* out);
  bool touches_fault(const Request& request) const;
  size_t queued() const;

  const int queue_depth_;
  const bool direct_;
  const uint64_t part_bytes_;
  const std::vector<std::pair<uint64_t, uint64_t>> fault_ranges_;
  std::array<RequestFifo, 3> queues_;  // by priority: requests with parts that are not handed over
  std::vector<Request> requests_;
  std::vector<int> free_requests_;
  std::vector<Part> parts_;
  std::vector<int> free_parts_;
  std::vector<int> landed_;  // requests that have ended and are not delivered yet
  ReadQueueStats stats_;
  int in_flight_ = 0;
  bool draining_ = false;
};

// Backends; each returns IO_ERROR or IO_UNAVAILABLE as ReadQueue::create() does.
Result<std::unique_ptr<ReadQueue>> make_io_uring_queue(const ReadQueueOptions& options);
Result<std::unique_ptr<ReadQueue>> make_pread_queue(const ReadQueueOptions& options);
Result<std::unique_ptr<ReadQueue>> make_fake_queue(const ReadQueueOptions& options);

}  // namespace moestro
