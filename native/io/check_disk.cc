// The real backends on a scratch file: right bytes, the file's end, damaged records, injected faults, page cache.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/io/check_reads.h"
#include "native/io/disk_file.h"

namespace moestro {
namespace {

constexpr uint32_t kPage = 4096;

// A file that is removed with its owner.
class ScratchFile {
 public:
  ScratchFile(const std::string& directory, const std::vector<uint8_t>& content)
      : path_(directory + "/read-check-XXXXXX") {
    const int descriptor = mkstemp(path_.data());
    if (descriptor < 0) {
      error_ = std::string("cannot create \"") + path_ + "\": " + std::strerror(errno);
      path_.clear();
      return;
    }
    size_t done = 0;
    while (done < content.size()) {
      const ssize_t wrote = write(descriptor, content.data() + done, content.size() - done);
      if (wrote <= 0) break;
      done += static_cast<size_t>(wrote);
    }
    // Dirty pages cannot be dropped from the page cache, and what is cached would not come from the disk.
    if (done < content.size() || fsync(descriptor) != 0) error_ = std::string("cannot write: ") + std::strerror(errno);
    (void)posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
    close(descriptor);
  }
  ~ScratchFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  const std::string& path() const { return path_; }
  const std::string& error() const { return error_; }

 private:
  std::string path_, error_;
};

// Pages of the file in the page cache.
size_t cached_pages(const std::string& path, size_t bytes) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return 0;
  void* const mapping = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor, 0);
  close(descriptor);
  if (mapping == MAP_FAILED) return 0;
  std::vector<unsigned char> resident((bytes + kPage - 1) / kPage);
  const int failed = mincore(mapping, bytes, resident.data());
  munmap(mapping, bytes);
  if (failed != 0) return 0;
  return static_cast<size_t>(std::count_if(resident.begin(), resident.end(), [](unsigned char r) { return r & 1; }));
}

void check_endings(CheckLog* log, ReadQueue* queue, const std::vector<uint8_t>& content, const std::string& what) {
  auto memory = AlignedBuffer::allocate(16 * kPage, nullptr, "check");
  if (!log->expect(memory.ok(), what + "has no memory")) return;
  uint8_t* const data = memory.value().data();
  const uint64_t last_page = content.size() / kPage * kPage;  // the file ends inside it
  ReadRequest damaged = plain_request(5, kPage, data + 8 * kPage, kPage);
  damaged.check_count = 1;
  damaged.checks[0] = SegmentCheck{0, 1, crc32c(0, content.data() + kPage, kPage) ^ 1};
  ReadRequest sound = damaged;
  sound.ticket = 6;
  sound.segments[0].data = data + 9 * kPage;
  sound.checks[0].crc32c ^= 1;
  for (const ReadRequest& request :
       {plain_request(1, last_page, data, kPage), plain_request(2, last_page - kPage, data + kPage, 3 * kPage),
        plain_request(3, last_page + 8 * kPage, data + 4 * kPage, kPage),
        plain_request(4, last_page - kPage, data + 5 * kPage, kPage), damaged, sound}) {
    const Status status = queue->submit(request);
    log->expect(status.ok(), what + status.message());
  }
  const std::map<uint32_t, int> wanted = {{1, ENODATA}, {2, ENODATA}, {3, ENODATA}, {4, 0}, {5, EBADMSG}, {6, 0}};
  const auto errors = wait_for_all(queue);
  for (const auto& [ticket, error] : wanted) {
    const auto found = errors.find(ticket);
    log->expect(found != errors.end() && found->second == error,
                what + "ends request " + std::to_string(ticket) + " with errno " +
                    (found == errors.end() ? "none" : std::to_string(found->second)) + ", not " +
                    std::to_string(error));
  }
}

void check_backend(CheckLog* log, Random* random, IoBackend backend, bool direct, int depth, const std::string& path,
                   const std::vector<uint8_t>& content, bool file_takes_direct) {
  ReadQueueOptions options;
  options.path = path;
  options.backend = backend;
  options.queue_depth = depth;
  options.direct = direct;
  options.part_bytes = depth == 4 ? 2 * kPage : 1 << 20;
  options.fault_ranges = {{1000000, 1000001}, {3000000, 3100000}};
  auto made = ReadQueue::create(options);
  if (backend == IoBackend::io_uring && made.status().code() == "IO_UNAVAILABLE") return;  // forbidden here
  const std::string what = std::string(backend == IoBackend::pread ? "pread" : "io_uring") + " queue of depth " +
                           std::to_string(depth) + (direct ? ", direct, " : ", buffered, ");
  if (!log->expect(made.ok(), what + made.status().message())) return;
  ReadQueue& queue = *made.value();
  log->expect(queue.direct() == (direct && file_takes_direct), what + "reads otherwise than the file system allows");
  log->expect(queue.backend_name() == std::string(backend == IoBackend::pread ? "pread" : "io_uring"),
              what + "is called " + queue.backend_name());
  RandomReads reads;
  reads.align = queue.direct() ? kPage : 1;
  reads.failing = options.fault_ranges;
  check_random_reads(log, random, &queue, content, reads, what);
  check_endings(log, &queue, content, what);
  const ReadQueueStats stats = queue.stats();
  log->expect(stats.in_flight_max <= depth && stats.in_flight_max > 0, what + "exceeds its depth");

  // Closed with reads in flight, in the queue and landed: it must wait for the kernel before the memory goes.
  auto memory = AlignedBuffer::allocate(64 * kPage, nullptr, "check");
  for (uint32_t t = 0; t < 64 && memory.ok(); ++t) {
    const Status status = queue.submit(plain_request(t, t * kPage, memory.value().data() + t * kPage, kPage));
    log->expect(status.ok(), what + status.message());
  }
  made.value().reset();
}

void check_uncached(CheckLog* log, Random* random, const std::string& path, const std::vector<uint8_t>& content) {
  std::vector<uint8_t> out(content.size() + 1);
  const auto reads_well = [&](uint64_t offset, size_t bytes) {
    std::fill(out.begin(), out.end(), uint8_t{0});
    const Status status = read_file_uncached(path, offset, bytes, out.data());
    log->expect(status.ok() &&
                    std::equal(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(bytes),
                               content.begin() + static_cast<std::ptrdiff_t>(offset)) &&
                    out[bytes] == 0,
                "read_file_uncached() of " + std::to_string(bytes) + " bytes at " + std::to_string(offset) +
                    " differs: " + status.message());
  };
  reads_well(0, content.size());
  reads_well(1, content.size() - 1);
  reads_well(content.size() - 1, 1);
  reads_well(content.size(), 0);
  for (int i = 0; i < 30; ++i) {
    const uint64_t offset = random->between(0, content.size() - 1);
    reads_well(offset, random->between(1, std::min<uint64_t>(content.size() - offset, i % 2 == 0 ? 9000 : UINT64_MAX)));
  }
  const auto code_of = [&](const std::string& where, uint64_t offset, size_t bytes) {
    return read_file_uncached(where, offset, bytes, out.data()).code();
  };
  log->expect(code_of(path, content.size() - 1, 2) == "IO_ERROR", "read_file_uncached() reads past the end");
  log->expect(code_of(path, UINT64_MAX, 2) == "IO_ERROR", "read_file_uncached() takes any offset");
  log->expect(code_of(path + ".missing", 0, 1) == "IO_ERROR", "read_file_uncached() reads what is not there");
}

}  // namespace

void check_real_disk(CheckLog* log, uint64_t seed, const std::string& scratch_directory) {
  Random random(seed);
  // More than 2 readers' worth for read_file_uncached(), and an end inside a page.
  const std::vector<uint8_t> content = random_bytes(&random, (size_t{9} << 20) + 1000);
  ScratchFile file(scratch_directory, content);
  if (!log->expect(file.error().empty(), "scratch file: " + file.error())) return;
  auto probed = DiskFile::open(file.path(), true);
  if (!log->expect(probed.ok(), "scratch file: " + probed.status().message())) return;
  const bool takes_direct = probed.value()->direct();
  const size_t cached_before = cached_pages(file.path(), content.size());
  for (const IoBackend backend : {IoBackend::pread, IoBackend::io_uring}) {
    for (const int depth : {1, 4, 16}) {
      for (const bool direct : {true, false}) {
        check_backend(log, &random, backend, direct, depth, file.path(), content, takes_direct);
      }
    }
  }
  check_uncached(log, &random, file.path(), content);
  const size_t cached_after = cached_pages(file.path(), content.size());
  // tmpfs (which refuses direct reads) has nowhere else to keep its pages.
  log->expect(!takes_direct || cached_after <= cached_before, "reading leaves " + std::to_string(cached_after) +
                                                                  " pages in the page cache, " +
                                                                  std::to_string(cached_before) + " before");

  ReadQueueOptions missing;
  missing.path = file.path() + ".missing";
  log->expect(ReadQueue::create(missing).status().code() == "IO_ERROR", "ReadQueue opens a missing file");
  missing.path = scratch_directory;
  log->expect(ReadQueue::create(missing).status().code() == "IO_ERROR", "ReadQueue opens a directory");
}

}  // namespace moestro
