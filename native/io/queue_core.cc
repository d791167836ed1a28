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

void RequestFifo::push(const ReadRequest& request) {
  if (count_ == ring_.size()) {
    std::rotate(ring_.begin(), ring_.begin() + static_cast<std::ptrdiff_t>(head_), ring_.end());
    head_ = 0;
    ring_.resize(std::max<size_t>(64, 2 * ring_.size()));
  }
  ring_[(head_ + count_++) % ring_.size()] = request;
}

void RequestFifo::pop() {
  head_ = (head_ + 1) % ring_.size();
  --count_;
}

bool RequestFifo::remove(uint32_t ticket) {
  for (size_t i = 0; i < count_; ++i) {
    if (ring_[(head_ + i) % ring_.size()].ticket != ticket) continue;
    for (size_t k = i; k + 1 < count_; ++k) {
      ring_[(head_ + k) % ring_.size()] = ring_[(head_ + k + 1) % ring_.size()];
    }
    --count_;
    return true;
  }
  return false;
}

QueueCore::QueueCore(const ReadQueueOptions& options, bool direct)
    : queue_depth_(options.queue_depth), direct_(direct), fault_ranges_(options.fault_ranges) {
  // Twice the depth: the next requests are handed over before those that just landed are verified and delivered.
  slots_.resize(2 * static_cast<size_t>(queue_depth_));
  for (int i = slot_count() - 1; i >= 0; --i) free_slots_.push_back(i);
  landed_.reserve(slots_.size());
  cancelled_.reserve(64);
}

Status QueueCore::submit(const ReadRequest& request) {
  if (Status status = check_request(request, direct_); !status.ok()) return status;
  queues_[static_cast<size_t>(request.priority)].push(request);
  ++stats_.submitted;
  pump();
  return Status();
}

bool QueueCore::cancel(uint32_t ticket) {
  for (RequestFifo& queue : queues_) {
    if (!queue.remove(ticket)) continue;
    cancelled_.push_back(ReadCompletion{ticket, ECANCELED, 0, 0});
    ++stats_.cancelled;
    return true;
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
  int delivered = 0;
  for (;;) {
    delivered = poll(out);
    if (delivered > 0 || (in_flight_ == 0 && queued() == 0)) break;
    reap(true);
  }
  stats_.wait_ns += now_ns() - begin;
  return delivered;
}

ReadQueueStats QueueCore::stats() const {
  ReadQueueStats stats = stats_;
  stats.in_flight = in_flight_;
  stats.queued = static_cast<int>(queued());
  return stats;
}

uint64_t QueueCore::now_ns() const {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
}

// The part is everything from byte `begin` of the request to its end.
void QueueCore::prepare_part(Slot* slot, uint64_t begin) {
  slot->part_begin = begin;
  slot->part_bytes = slot->total - begin;
  slot->part_offset = slot->request.offset + begin;
  slot->vector_count = 0;
  uint64_t skip = begin;
  for (int i = 0; i < slot->request.segment_count; ++i) {
    const Segment& segment = slot->request.segments[i];
    if (skip >= segment.bytes) {
      skip -= segment.bytes;
      continue;
    }
    slot->vectors[slot->vector_count++] = iovec{segment.data + skip, static_cast<size_t>(segment.bytes - skip)};
    skip = 0;
  }
}

void QueueCore::begin_part(int index, uint64_t begin) {
  prepare_part(&slots_[index], begin);
  start(index);
}

void QueueCore::part_ended(int index, int64_t result) {
  Slot& s = slots_[index];
  if (draining_) return land(index, ECANCELED);
  if (result < 0) {
    const int error = static_cast<int>(-result);
    if ((error == EINTR || error == EAGAIN) && ++s.retries <= kRetriesMax) return begin_part(index, s.part_begin);
    return land(index, error);
  }
  if (result == 0) return land(index, ENODATA);
  const uint64_t reached = s.part_begin + static_cast<uint64_t>(result);
  if (reached >= s.total) {
    s.reached = s.total;
    return land(index, 0);
  }
  ++stats_.short_reads;
  if (reached > s.reached) {
    s.reached = reached;
  } else if (s.request.offset + s.reached >= file_bytes()) {
    // Resumed from the aligned byte before the file's end and got no further.
    return land(index, ENODATA);
  } else if (++s.retries > kRetriesMax) {
    return land(index, EIO);
  }
  begin_part(index, direct_ ? reached / kDirectAlignment * kDirectAlignment : reached);
}

void QueueCore::land(int index, int error) {
  Slot& s = slots_[index];
  s.error = error;
  s.ended_ns = now_ns();
  --in_flight_;
  landed_.push_back(index);
}

bool QueueCore::touches_fault(const ReadRequest& request, uint64_t bytes) const {
  return std::any_of(fault_ranges_.begin(), fault_ranges_.end(),
                     [&](const auto& range) { return overlap(request.offset, request.offset + bytes, range); });
}

size_t QueueCore::queued() const { return queues_[0].size() + queues_[1].size() + queues_[2].size(); }

// Hands over the first requests of the most urgent queues while depth and slots allow.
void QueueCore::pump() {
  for (RequestFifo& queue : queues_) {
    while (!queue.empty() && in_flight_ < queue_depth_ && !free_slots_.empty()) {
      const int index = free_slots_.back();
      free_slots_.pop_back();
      Slot& s = slots_[index];
      s.request = queue.front();
      queue.pop();
      s.total = total_bytes(s.request);
      s.reached = 0;
      s.retries = 0;
      s.error = 0;
      s.started_ns = now_ns();
      stats_.in_flight_max = std::max(stats_.in_flight_max, ++in_flight_);
      if (touches_fault(s.request, s.total)) {
        land(index, EIO);
      } else {
        begin_part(index, 0);
      }
    }
  }
  flush();
}

int QueueCore::deliver(std::vector<ReadCompletion>* out) {
  const int delivered = static_cast<int>(cancelled_.size() + landed_.size());
  out->insert(out->end(), cancelled_.begin(), cancelled_.end());
  cancelled_.clear();
  for (const int index : landed_) {
    const Slot& s = slots_[index];
    const int error = s.error == 0 && !checksums_agree(s.request) ? EBADMSG : s.error;
    stats_.bytes_read += s.reached;
    ++(error == 0 ? stats_.completed : stats_.failed);
    out->push_back(
        ReadCompletion{s.request.ticket, error, static_cast<uint32_t>(s.reached), s.ended_ns - s.started_ns});
    free_slots_.push_back(index);
  }
  landed_.clear();
  // Slots that were full of landed requests may have kept queued ones waiting.
  if (delivered > 0 && queued() > 0) pump();
  return delivered;
}

void QueueCore::drain() {
  draining_ = true;
  for (RequestFifo& queue : queues_) queue.clear();
  flush();
  while (in_flight_ > 0) reap(true);
}

}  // namespace moestro
