// The read queue: explicit, overlapped reads of one file into caller-owned memory. Knows files, offsets and
// addresses, never experts.
//
// A request is one contiguous range of the file scattered over segments (a readv). Requests wait in three queues,
// demand before upgrade before speculation. They go to the kernel in parts of about `part_bytes`, at most `queue_depth`
// at a time and request after request: so the disk has enough to do at once, the first request lands long before the
// last, and one that nobody wants any more stops after the parts it has in flight. Short reads are resubmitted from
// where they stopped; EINTR and EAGAIN are retried; other errors end the request with their errno.
// End of file inside a request is an error (-ENODATA). Where a request names checksums they are verified before it
// completes (-EBADMSG when one differs).
//
// All calls come from one thread (the engine's). Nothing is allocated after create() except when queues grow.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "native/base/status.h"

namespace moestro {

enum class IoBackend { automatic, io_uring, pread, fake };
enum class ReadPriority : uint8_t { demand = 0, upgrade = 1, speculation = 2 };

struct Segment {
  uint8_t* data;  // multiple of 4096 for O_DIRECT
  uint32_t bytes;
};

constexpr int kMaxSegments = 12;
constexpr int kMaxChecks = 4;

// The checksum of segments [first, first + count), as one run of bytes.
struct SegmentCheck {
  uint8_t first, count;
  uint32_t crc32c;
};

struct ReadRequest {
  uint32_t ticket;  // chosen by the caller, unique among the requests not yet taken as completions
  ReadPriority priority;
  uint64_t offset;  // multiple of 4096 for O_DIRECT
  int segment_count;
  std::array<Segment, kMaxSegments> segments;
  int check_count = 0;
  std::array<SegmentCheck, kMaxChecks> checks;
};

struct ReadCompletion {
  uint32_t ticket;
  int error;            // 0, or an errno value (positive), ECANCELED for cancelled ones
  uint32_t bytes;       // read; of cancelled and failed ones what had been
  uint64_t latency_ns;  // from the first part's hand-over to the kernel until the last was reaped
};

struct ReadQueueStats {
  uint64_t submitted = 0, completed = 0, failed = 0, cancelled = 0, bytes_read = 0, short_reads = 0;
  uint64_t wait_ns = 0;                  // time spent inside wait()
  int in_flight = 0, in_flight_max = 0;  // parts
  int queued = 0;                        // requests with parts that are not in flight yet
};

// Faults of the in-memory fake, all drawn from `seed`: latency in [latency_min_us, latency_max_us], a share of short
// reads, and offsets whose read fails with EIO (as ranges [begin, end)).
struct FakeDisk {
  std::vector<uint8_t> content;
  uint64_t seed = 1;
  uint32_t latency_min_us = 0, latency_max_us = 0;
  double short_read_share = 0.0;
  std::vector<std::pair<uint64_t, uint64_t>> bad_ranges;
};

struct ReadQueueOptions {
  std::string path;
  IoBackend backend = IoBackend::automatic;
  int queue_depth = 8;  // parts, 1..256; speculation has half of it
  // 1 MiB at depth 8 is the fastest way to read records of 3.3 MB on the virtio disk at hand: 6.5 GB/s, against 5.0 for
  // whole records at depth 4 and 4.1 at 16 (fio, huge pages).
  uint32_t part_bytes = 1 << 20;
  int pread_threads = 4;
  bool direct = true;  // tried with a real read at open; falls back to buffered reads, which are dropped from the
                       // page cache after use (POSIX_FADV_DONTNEED)
  FakeDisk fake;       // for IoBackend::fake only
  // Byte ranges of the file whose reads fail with EIO on any backend: fault injection for tests.
  std::vector<std::pair<uint64_t, uint64_t>> fault_ranges;
};

class ReadQueue {
 public:
  // Errors: IO_ERROR (open or probe failed), IO_UNAVAILABLE (io_uring asked for by name and missing).
  static Result<std::unique_ptr<ReadQueue>> create(const ReadQueueOptions& options);
  virtual ~ReadQueue() = default;

  // Queues the request and hands over as many parts as the depth allows; `more_follow` leaves that to the next call of
  // any kind. Memory must stay valid until its completion.
  virtual Status submit(const ReadRequest& request, bool more_follow = false) = 0;
  // Ends a request that is not wholly with the kernel: it completes with ECANCELED as soon as its parts in flight have
  // landed, and true is returned. Otherwise it runs on, and false is returned.
  virtual bool cancel(uint32_t ticket) = 0;
  // Moves what is not with the kernel yet to the end of another priority's queue; false when there is no such thing.
  virtual bool promote(uint32_t ticket, ReadPriority priority) = 0;
  // Moves finished requests to `out` without waiting; returns how many.
  virtual int poll(std::vector<ReadCompletion>* out) = 0;
  // The same, but waits until at least one has finished; returns 0 at once when nothing is queued or in flight.
  virtual int wait(std::vector<ReadCompletion>* out) = 0;

  virtual ReadQueueStats stats() const = 0;
  virtual const char* backend_name() const = 0;  // "io_uring", "pread" or "fake"
  virtual bool direct() const = 0;
};

// Reads [offset, offset + bytes) of `path` into `out` without leaving it in the page cache (O_DIRECT where the file
// system takes it, else a read followed by POSIX_FADV_DONTNEED). For loading dense weights.
Status read_file_uncached(const std::string& path, uint64_t offset, size_t bytes, uint8_t* out);

}  // namespace moestro
