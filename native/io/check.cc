#include "native/base/check.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/io/check_reads.h"

namespace moestro {
namespace {

// One request that is being made: where it reads and what must come of it.
struct Expected {
  ReadRequest request;
  uint64_t bytes = 0;
  int lane = 0;
  bool wrong_crc = false, fails = false, cancelled = false, done = false;
};

constexpr uint32_t kSegmentBytesMax = 16384;
constexpr size_t kLaneBytes = 8 * kSegmentBytesMax;

Expected make_expected(Random* random, uint32_t ticket, uint8_t* lane, const std::vector<uint8_t>& content,
                       const RandomReads& options) {
  Expected e;
  ReadRequest& r = e.request;
  r.ticket = ticket;
  r.priority = static_cast<ReadPriority>(random->between(0, 2));
  r.segment_count = static_cast<int>(random->between(1, 8));
  for (int i = 0; i < r.segment_count; ++i) {
    const auto bytes = static_cast<uint32_t>(options.align * random->between(1, kSegmentBytesMax / options.align));
    r.segments[i] = Segment{lane + static_cast<size_t>(i) * kSegmentBytesMax, bytes};
    e.bytes += bytes;
  }
  r.offset = random->between(0, (content.size() - e.bytes) / options.align) * options.align;
  r.check_count = static_cast<int>(random->between(0, std::min(kMaxChecks, r.segment_count)));
  uint64_t at = r.offset;
  for (int i = 0; i < r.check_count; ++i) {  // one segment each, the last takes the rest
    const int count = i + 1 == r.check_count ? r.segment_count - i : 1;
    uint64_t bytes = 0;
    for (int s = i; s < i + count; ++s) bytes += r.segments[s].bytes;
    r.checks[i] =
        SegmentCheck{static_cast<uint8_t>(i), static_cast<uint8_t>(count), crc32c(0, content.data() + at, bytes)};
    at += bytes;
  }
  e.wrong_crc = r.check_count > 0 && random->happens(options.wrong_crc_share);
  if (e.wrong_crc) r.checks[random->between(0, r.check_count - 1)].crc32c ^= 1u << random->between(0, 31);
  for (const auto& [begin, end] : options.failing) e.fails = e.fails || (r.offset < end && begin < r.offset + e.bytes);
  return e;
}

bool right_bytes(const Expected& e, const std::vector<uint8_t>& content) {
  uint64_t at = e.request.offset;
  for (int i = 0; i < e.request.segment_count; ++i) {
    const Segment& s = e.request.segments[i];
    if (std::memcmp(s.data, content.data() + at, s.bytes) != 0) return false;
    at += s.bytes;
  }
  return true;
}

}  // namespace

std::vector<uint8_t> random_bytes(Random* random, size_t bytes) {
  std::vector<uint8_t> made(bytes);
  for (uint8_t& b : made) b = static_cast<uint8_t>(random->next());
  return made;
}

ReadRequest plain_request(uint32_t ticket, uint64_t offset, uint8_t* data, uint32_t bytes, ReadPriority priority) {
  ReadRequest r{};
  r.ticket = ticket;
  r.priority = priority;
  r.offset = offset;
  r.segment_count = 1;
  r.segments[0] = Segment{data, bytes};
  return r;
}

std::map<uint32_t, int> wait_for_all(ReadQueue* queue) {
  std::map<uint32_t, int> errors;
  std::vector<ReadCompletion> out;
  while (queue->wait(&out) > 0) {
    for (const ReadCompletion& c : out) {
      const bool first = errors.emplace(c.ticket, c.error).second;
      if (!first) errors[c.ticket] = -1;
    }
    out.clear();
  }
  return errors;
}

std::vector<uint32_t> check_random_reads(CheckLog* log, Random* random, ReadQueue* queue,
                                         const std::vector<uint8_t>& content, const RandomReads& options,
                                         const std::string& what) {
  std::vector<uint32_t> order;
  auto memory = AlignedBuffer::allocate(kLaneBytes * static_cast<size_t>(options.outstanding_max), nullptr, "check");
  if (!log->expect(memory.ok(), what + ": " + memory.status().message())) return order;
  std::vector<int> free_lanes;
  for (int i = 0; i < options.outstanding_max; ++i) free_lanes.push_back(i);
  std::vector<Expected> all;
  std::vector<ReadCompletion> out;
  int done = 0;
  while (done < options.requests) {
    while (!free_lanes.empty() && static_cast<int>(all.size()) < options.requests) {
      const int lane = free_lanes.back();
      free_lanes.pop_back();
      uint8_t* const data = memory.value().data() + static_cast<size_t>(lane) * kLaneBytes;
      std::memset(data, 0xA5, kLaneBytes);
      all.push_back(make_expected(random, static_cast<uint32_t>(all.size()), data, content, options));
      all.back().lane = lane;
      const Status status = queue->submit(all.back().request);
      if (!log->expect(status.ok(), what + ": " + status.message())) return order;
      Expected& victim = all[random->between(0, all.size() - 1)];
      if (!victim.done && !victim.cancelled && random->happens(options.cancel_share)) {
        victim.cancelled = queue->cancel(victim.request.ticket);
      }
    }
    out.clear();
    const int got = random->happens(0.5) ? queue->poll(&out) : queue->wait(&out);
    if (!log->expect(got == static_cast<int>(out.size()), what + ": wait() or poll() returns another count"))
      return order;
    for (const ReadCompletion& c : out) {
      const std::string which = what + ": request " + std::to_string(c.ticket) + " ";
      if (!log->expect(c.ticket < all.size() && !all[c.ticket].done, which + "ends twice or was never made")) {
        return order;
      }
      Expected& e = all[c.ticket];
      const int wanted = e.cancelled ? ECANCELED : e.fails ? EIO : e.wrong_crc ? EBADMSG : 0;
      log->expect(c.error == wanted,
                  which + "ends with errno " + std::to_string(c.error) + ", not " + std::to_string(wanted));
      if (wanted == 0) {
        log->expect(c.bytes == e.bytes,
                    which + "reports " + std::to_string(c.bytes) + " bytes, not " + std::to_string(e.bytes));
        log->expect(right_bytes(e, content), which + "holds other bytes than the file");
      }
      e.done = true;
      free_lanes.push_back(e.lane);
      order.push_back(c.ticket);
      ++done;
    }
  }
  out.clear();
  log->expect(queue->wait(&out) == 0 && queue->poll(&out) == 0, what + ": more completions than requests");
  const ReadQueueStats stats = queue->stats();
  log->expect(
      stats.submitted == stats.completed + stats.failed + stats.cancelled && stats.in_flight == 0 && stats.queued == 0,
      what + ": the counters do not add up");
  return order;
}

std::vector<std::string> check_reads(uint64_t seed, const std::string& scratch_directory) {
  CheckLog log(seed);
  check_fake_disk(&log, seed);
  check_real_disk(&log, seed, scratch_directory);
  return log.take();
}

std::vector<std::string> check_base(uint64_t seed, const std::string& scratch_directory) {
  std::vector<std::string> lines = check_threads_and_checksums(seed);
  for (std::string& line : check_memory(seed)) lines.push_back(std::move(line));
  for (std::string& line : check_reads(seed, scratch_directory)) lines.push_back(std::move(line));
  return lines;
}

}  // namespace moestro
