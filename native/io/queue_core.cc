#include "native/io/queue_core.h"

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "native/base/crc32c.h"
#include "native/io/disk_file.h"

namespace moestro {
namespace {

// EINTR and EAGAIN say nothing about the data, but a disk that answers nothing else must not hold a request for ever.
constexpr int kRetriesMax = 1000;

bool overlap(uint64_t begin, uint64_t end, const std::pair<uint64_t, uint64_t>& range) {
  return begin < range.second && range.first < end;
}

Status invalid(uint32_t ticket, const std::string& found) {
  return Status("INVALID_ARGUMENT", "Cannot submit read " + std::to_string(ticket) + ": " + found);
}

uint64_t total_bytes(const ReadRequest& request) {
  uint64_t total = 0;
  for (int i = 0; i < request.segment_count; ++i) total += request.segments[i].bytes;
  return total;
}

Status check_request(const ReadRequest& request, bool direct) {
  if (request.segment_count < 1 || request.segment_count > kMaxSegments) {
    return invalid(request.ticket, "got " + std::to_string(request.segment_count) + " segments, needed 1 to " +
                                       std::to_string(kMaxSegments));
  }
  if (request.check_count < 0 || request.check_count > kMaxChecks) {
    return invalid(request.ticket, "got " + std::to_string(request.check_count) + " checksums, needed 0 to " +
                                       std::to_string(kMaxChecks));
  }
  if (static_cast<uint8_t>(request.priority) > static_cast<uint8_t>(ReadPriority::speculation)) {
    return invalid(request.ticket,
                   "got priority " + std::to_string(static_cast<int>(request.priority)) + ", needed 0 to 2");
  }
  uint64_t misaligned = request.offset % kDirectAlignment;
  for (int i = 0; i < request.segment_count; ++i) {
    const Segment& segment = request.segments[i];
    if (segment.data == nullptr || segment.bytes == 0) {
      return invalid(request.ticket, "segment " + std::to_string(i) + " is empty");
    }
    misaligned |= (reinterpret_cast<uintptr_t>(segment.data) | segment.bytes) % kDirectAlignment;
  }
  if (direct && misaligned != 0) {
    return invalid(request.ticket, "offset, addresses and sizes must be multiples of 4096 bytes for direct reads");
  }
  const uint64_t total = total_bytes(request);
  if (total > UINT32_MAX || request.offset > INT64_MAX - total) {
    return invalid(request.ticket, "got " + std::to_string(total) + " bytes at offset " +
                                       std::to_string(request.offset) + ", needed less than 4 GiB within 8 EiB");
  }
  for (int i = 0; i < request.check_count; ++i) {
    const SegmentCheck& check = request.checks[i];
    if (check.count == 0 || check.first + check.count > request.segment_count) {
      return invalid(request.ticket, "checksum " + std::to_string(i) + " covers segments that are not there");
    }
  }
  return Status();
}

bool checksums_agree(const ReadRequest& request) {
  for (int i = 0; i < request.check_count; ++i) {
    const SegmentCheck& check = request.checks[i];
    uint32_t crc = 0;
    for (int s = check.first; s < check.first + check.count; ++s) {
      crc = crc32c(crc, request.segments[s].data, request.segments[s].bytes);
    }
    if (crc != check.crc32c) return false;
  }
  return true;
}

}  // namespace

void RequestFifo::push(int index) {
  if (count_ == ring_.size()) {
    std::rotate(ring_.begin(), ring_.begin() + static_cast<std::ptrdiff_t>(head_), ring_.end());
    head_ = 0;
    ring_.resize(std::max<size_t>(64, 2 * ring_.size()));
  }
  ring_[(head_ + count_++) % ring_.size()] = index;
}

void RequestFifo::pop() {
  head_ = (head_ + 1) % ring_.size();
  --count_;
}

void RequestFifo::remove_at(size_t i) {
  for (size_t k = i; k + 1 < count_; ++k) ring_[(head_ + k) % ring_.size()] = ring_[(head_ + k + 1) % ring_.size()];
  --count_;
}

QueueCore::QueueCore(const ReadQueueOptions& options, bool direct)
    : queue_depth_(options.queue_depth),
      direct_(direct),
      part_bytes_(options.part_bytes),
      fault_ranges_(options.fault_ranges) {
  parts_.resize(static_cast<size_t>(queue_depth_));
  for (int i = part_count() - 1; i >= 0; --i) free_parts_.push_back(i);
  landed_.reserve(64);
}

Status QueueCore::submit(const ReadRequest& request, bool more_follow) {
  if (Status status = check_request(request, direct_); !status.ok()) return status;
  if (free_requests_.empty()) {
    free_requests_.push_back(static_cast<int>(requests_.size()));
    requests_.emplace_back();
  }
  const int index = free_requests_.back();
  free_requests_.pop_back();
  Request& r = requests_[index];
  r = Request{};
  r.ask = request;
  r.total = total_bytes(request);
  // Parts of equal size: a short last one would cost as much and carry less.
  const uint64_t parts = (r.total + part_bytes_ - 1) / part_bytes_;
  r.part_bytes = ((r.total + parts - 1) / parts + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
  queues_[static_cast<size_t>(request.priority)].push(index);
  ++stats_.submitted;
  if (!more_follow) pump();
  return Status();
}

bool QueueCore::cancel(uint32_t ticket) {
  for (RequestFifo& queue : queues_) {
    for (size_t i = 0; i < queue.size(); ++i) {
      const int index = queue.at(i);
      Request& r = requests_[index];
      if (r.ask.ticket != ticket) continue;
      queue.remove_at(i);
      if (r.sent == 0) r.started_ns = now_ns();
      r.sent = r.total;
      r.error = ECANCELED;
      if (r.open_parts == 0) land(index);
      return true;
    }
  }
  return false;
}

bool QueueCore::promote(uint32_t ticket, ReadPriority priority) {
  for (RequestFifo& queue : queues_) {
    for (size_t i = 0; i < queue.size(); ++i) {
      const int index = queue.at(i);
      if (requests_[index].ask.ticket != ticket) continue;
      queue.remove_at(i);
      requests_[index].ask.priority = priority;
      queues_[static_cast<size_t>(priority)].push(index);
      pump();
      return true;
    }
  }
  return false;
}

int QueueCore::poll(std::vector<ReadCompletion>* out) {
  reap(false);
  pump();
  return deliver(out);
}

int QueueCore::wait(std::vector<ReadCompletion>* out) {
  const uint64_t begin = now_ns();
  pump();
  // A part that ends is not yet a request that ends, and a cancelled one has ended already.
  while (landed_.empty() && in_flight_ > 0) {
    reap(true);
    pump();
  }
  stats_.wait_ns += now_ns() - begin;
  return deliver(out);
}

ReadQueueStats QueueCore::stats() const {
  ReadQueueStats stats = stats_;
  stats.in_flight = in_flight_;
  stats.queued = static_cast<int>(queued());
  return stats;
}

uint64_t QueueCore::now_ns() const {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// The attempt covers everything from byte `from` of the request to the end of the part.
void QueueCore::aim(Part* part, uint64_t from) {
  const ReadRequest& ask = requests_[part->request].ask;
  part->from = from;
  part->bytes = part->end - from;
  part->file_offset = ask.offset + from;
  part->vector_count = 0;
  uint64_t skip = from, left = part->bytes;
  for (int i = 0; i < ask.segment_count && left > 0; ++i) {
    const Segment& segment = ask.segments[i];
    if (skip >= segment.bytes) {
      skip -= segment.bytes;
      continue;
    }
    const uint64_t bytes = std::min<uint64_t>(segment.bytes - skip, left);
    part->vectors[part->vector_count++] = iovec{segment.data + skip, static_cast<size_t>(bytes)};
    left -= bytes;
    skip = 0;
  }
}

void QueueCore::begin_part(int index, uint64_t from) {
  aim(&parts_[index], from);
  start(index);
}

void QueueCore::part_ended(int index, int64_t result) {
  Part& p = parts_[index];
  if (draining_) return end_part(index, ECANCELED);
  if (result < 0) {
    const int error = static_cast<int>(-result);
    if ((error == EINTR || error == EAGAIN) && ++p.retries <= kRetriesMax) return begin_part(index, p.from);
    return end_part(index, error);
  }
  if (result == 0) return end_part(index, ENODATA);
  const uint64_t reached = std::min(p.end, p.from + static_cast<uint64_t>(result));
  // Nobody waits for the rest of a request that was cancelled or has failed.
  if (reached == p.end || requests_[p.request].error != 0) {
    p.reached = std::max(p.reached, reached);
    return end_part(index, 0);
  }
  ++stats_.short_reads;
  if (reached > p.reached) {
    p.reached = reached;
  } else if (requests_[p.request].ask.offset + p.reached >= file_bytes()) {
    // Resumed from the aligned byte before the file's end and got no further.
    return end_part(index, ENODATA);
  } else if (++p.retries > kRetriesMax) {
    return end_part(index, EIO);
  }
  begin_part(index, direct_ ? reached / kDirectAlignment * kDirectAlignment : reached);
}

// The part is over; with the last one of its request so is that. Of a request that failed nothing more is handed over.
void QueueCore::end_part(int index, int error) {
  const Part& p = parts_[index];
  Request& r = requests_[p.request];
  r.read += p.reached - p.begin;
  stats_.bytes_read += p.reached - p.begin;
  if (error != 0 && r.error == 0) r.error = error;
  --r.open_parts;
  --in_flight_;
  free_parts_.push_back(index);
  // One that failed and is still queued is taken out by hand_over().
  if (r.sent == r.total && r.open_parts == 0) land(p.request);
}

void QueueCore::land(int request) {
  requests_[request].ended_ns = now_ns();
  landed_.push_back(request);
}

bool QueueCore::touches_fault(const Request& request) const {
  const uint64_t begin = request.ask.offset, end = begin + request.total;
  return std::any_of(fault_ranges_.begin(), fault_ranges_.end(),
                     [&](const auto& range) { return overlap(begin, end, range); });
}

size_t QueueCore::queued() const { return queues_[0].size() + queues_[1].size() + queues_[2].size(); }

// Hands over parts of the queue's first requests while fewer than `depth` are in flight.
void QueueCore::hand_over(RequestFifo* queue, int depth) {
  while (!queue->empty()) {
    const int index = queue->front();
    Request& r = requests_[index];
    if (r.sent == 0) {
      if (in_flight_ >= depth) return;
      r.started_ns = now_ns();
      if (touches_fault(r)) r.error = EIO;
    }
    while (r.error == 0 && r.sent < r.total) {
      if (in_flight_ >= depth) return;
      const int slot = free_parts_.back();
      free_parts_.pop_back();
      Part& p = parts_[slot];
      p = Part{};
      p.request = index;
      p.priority = r.ask.priority;
      p.begin = p.reached = r.sent;
      p.end = r.sent = std::min(r.total, r.sent + r.part_bytes);
      ++r.open_parts;
      stats_.in_flight_max = std::max(stats_.in_flight_max, ++in_flight_);
      begin_part(slot, p.begin);
    }
    queue->pop();
    r.sent = r.total;
    if (r.open_parts == 0) land(index);
  }
}

// The most urgent queues first. Speculation has half the depth, so that a demand read finds a disk with little before
// it.
void QueueCore::pump() {
  hand_over(&queues_[static_cast<size_t>(ReadPriority::demand)], queue_depth_);
  hand_over(&queues_[static_cast<size_t>(ReadPriority::upgrade)], queue_depth_);
  hand_over(&queues_[static_cast<size_t>(ReadPriority::speculation)], std::max(1, queue_depth_ / 2));
  flush();
}

int QueueCore::deliver(std::vector<ReadCompletion>* out) {
  const int delivered = static_cast<int>(landed_.size());
  for (const int index : landed_) {
    const Request& r = requests_[index];
    const int error = r.error == 0 && !checksums_agree(r.ask) ? EBADMSG : r.error;
    ++(error == 0 ? stats_.completed : error == ECANCELED ? stats_.cancelled : stats_.failed);
    out->push_back(ReadCompletion{r.ask.ticket, error, static_cast<uint32_t>(r.read), r.ended_ns - r.started_ns});
    free_requests_.push_back(index);
  }
  landed_.clear();
  return delivered;
}

void QueueCore::drain() {
  draining_ = true;
  for (RequestFifo& queue : queues_) queue.clear();
  flush();
  while (in_flight_ > 0) reap(true);
}

}  // namespace moestro
