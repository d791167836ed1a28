#include "native/io/disk_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "native/io/read_queue.h"
#include "native/memory/memory.h"

namespace moestro {
namespace {

Status io_error(const std::string& action, const std::string& path, const std::string& found) {
  return Status("IO_ERROR", "Cannot " + action + " \"" + path + "\": " + found);
}

int64_t pread_retrying(int descriptor, void* data, size_t bytes, uint64_t offset) {
  for (;;) {
    const ssize_t got = pread(descriptor, data, bytes, static_cast<off_t>(offset));
    if (got >= 0) return got;
    if (errno != EINTR) return -errno;
  }
}

// 0, or the errno with which the first block cannot be read. An empty file reads well.
int probe(int descriptor) {
  alignas(kDirectAlignment) uint8_t block[kDirectAlignment];
  const int64_t got = pread_retrying(descriptor, block, sizeof block, 0);
  return got < 0 ? static_cast<int>(-got) : 0;
}

}  // namespace

Result<std::unique_ptr<DiskFile>> DiskFile::open(const std::string& path, bool try_direct) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return io_error("open", path, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return io_error("open", path, "not a regular file");  // opening a pipe would hang
  if (try_direct) {
    // tmpfs and some network file systems refuse the flag, others take it and refuse the read.
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (descriptor >= 0) {
      std::unique_ptr<DiskFile> file(new DiskFile(descriptor, true));
      if (probe(descriptor) == 0) return file;
    }
  }
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return io_error("open", path, std::strerror(errno));
  std::unique_ptr<DiskFile> file(new DiskFile(descriptor, false));
  // Read-ahead would drag in bytes that nobody asked for.
  (void)posix_fadvise(descriptor, 0, 0, POSIX_FADV_RANDOM);
  if (const int error = probe(descriptor); error != 0) return io_error("read", path, std::strerror(error));
  file->forget(0, kDirectAlignment);
  return file;
}

DiskFile::~DiskFile() { close(descriptor_); }

uint64_t DiskFile::size() const {
  struct stat info;
  return fstat(descriptor_, &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

void DiskFile::forget(uint64_t offset, uint64_t bytes) const {
  if (direct_) return;
  // Only whole pages are dropped, so widen to them.
  const uint64_t begin = offset / kDirectAlignment * kDirectAlignment;
  const uint64_t end = (offset + bytes + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
  (void)posix_fadvise(descriptor_, static_cast<off_t>(begin), static_cast<off_t>(end - begin), POSIX_FADV_DONTNEED);
}

namespace {

// Reads [offset, offset + bytes) through `bounce`, whose rows are aligned as the disk wants them. "" or what went
// wrong.
std::string read_range(const DiskFile& file, const AlignedBuffer& bounce, uint64_t offset, size_t bytes, uint8_t* out) {
  size_t done = 0;
  while (done < bytes) {
    const uint64_t at = offset + done;
    const uint64_t begin = at / kDirectAlignment * kDirectAlignment;
    const size_t skip = static_cast<size_t>(at - begin);
    const size_t wanted =
        std::min(bounce.size(), (skip + (bytes - done) + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment);
    const int64_t got = pread_retrying(file.descriptor(), bounce.data(), wanted, begin);
    if (got < 0) return std::string(std::strerror(static_cast<int>(-got))) + " at offset " + std::to_string(at);
    file.forget(begin, static_cast<uint64_t>(got));
    if (static_cast<size_t>(got) <= skip) return "the file ends at offset " + std::to_string(begin + got);
    const size_t part = std::min(static_cast<size_t>(got) - skip, bytes - done);
    std::memcpy(out + done, bounce.data() + skip, part);
    done += part;
  }
  return "";
}

}  // namespace

Status read_file_uncached(const std::string& path, uint64_t offset, size_t bytes, uint8_t* out) {
  // Each reader's bounce buffer stays in its core's cache, and while one copies (and the system finds pages for `out`)
  // the others read.
  constexpr size_t kBounceBytes = size_t{1} << 20;
  constexpr size_t kReadersMax = 4;
  constexpr size_t kBytesPerReader = size_t{4} << 20;  // below this a thread costs more than it saves
  if (bytes == 0) return Status();
  const std::string action = "read " + std::to_string(bytes) + " bytes at offset " + std::to_string(offset) + " of";
  if (offset > INT64_MAX - uint64_t{bytes}) return io_error(action, path, "no file is that long");
  auto opened = DiskFile::open(path, true);
  if (!opened.ok()) return opened.status();
  const DiskFile& file = *opened.value();
  if (file.size() < offset + bytes) {
    return io_error(action, path, "the file ends at offset " + std::to_string(file.size()));
  }

  const size_t readers = std::clamp<size_t>(bytes / kBytesPerReader, 1, kReadersMax);
  const size_t share = (bytes / readers + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
  std::vector<std::string> failures(readers);
  const auto read_share = [&](size_t reader) {
    const size_t begin = std::min(bytes, reader * share);
    const size_t end = reader + 1 == readers ? bytes : std::min(bytes, begin + share);
    auto bounce = AlignedBuffer::allocate(std::min(end - begin + 2 * kDirectAlignment, kBounceBytes), nullptr, "");
    failures[reader] = bounce.ok() ? read_range(file, bounce.value(), offset + begin, end - begin, out + begin)
                                   : bounce.status().message();
  };
  std::vector<std::thread> threads;
  for (size_t reader = 1; reader < readers; ++reader) {
    try {
      threads.emplace_back(read_share, reader);
    } catch (const std::system_error&) {  // no thread to be had: its share is read here
      read_share(reader);
    }
  }
  read_share(0);
  for (std::thread& thread : threads) thread.join();
  for (const std::string& failure : failures) {
    if (!failure.empty()) return io_error(action, path, failure);
  }
  return Status();
}

}  // namespace moestro
