#include "native/io/record_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "native/base/crc32c.h"

namespace moestro {
namespace {

// Linux takes 1024 pieces a call (UIO_MAXIOV).
constexpr size_t kPiecesPerCall = 1024;

Status failed(const std::string& action, const std::string& path, const std::string& found) {
  return Status("IO_ERROR", "Cannot " + action + " \"" + path + "\": " + found);
}

Status failed(const std::string& action, const std::string& path, int error) {
  const bool is_full = error == ENOSPC || error == EDQUOT;
  return Status(is_full ? "DISK_FULL" : "IO_ERROR", "Cannot " + action + " \"" + path + "\": " + std::strerror(error));
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

std::vector<iovec> vectors(std::span<const uint8_t> header, const Pieces& pieces, std::span<const uint8_t> end) {
  std::vector<iovec> all;
  all.reserve(pieces.size() + 2);
  const auto add = [&all](const uint8_t* data, size_t bytes) {
    if (bytes > 0) all.push_back({const_cast<uint8_t*>(data), bytes});
  };
  add(header.data(), header.size());
  for (const auto& piece : pieces) add(piece.data(), piece.size());
  add(end.data(), end.size());
  return all;
}

// Moves all of `all` with `call` (readv or writev), which may do less than asked. 0, an errno, or -1 at the end of the
// file.
template <typename Call>
int move_all(Call call, int descriptor, std::vector<iovec>& all) {
  for (size_t first = 0; first < all.size();) {
    const ssize_t got =
        call(descriptor, all.data() + first, static_cast<int>(std::min(all.size() - first, kPiecesPerCall)));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return -1;
    size_t left = static_cast<size_t>(got);
    while (first < all.size() && left >= all[first].iov_len) left -= all[first++].iov_len;
    if (left > 0) {
      all[first].iov_base = static_cast<uint8_t*>(all[first].iov_base) + left;
      all[first].iov_len -= left;
    }
  }
  return 0;
}

uint32_t checksum(std::span<const uint8_t> header, const Pieces& pieces) {
  uint32_t crc = crc32c(0, header.data(), header.size());
  for (const auto& piece : pieces) crc = crc32c(crc, piece.data(), piece.size());
  return crc;
}

// Pieces that nobody has written to yet get their memory in one call each: a read that finds it missing page by page
// takes several times as long where a page fault is dear, as on virtual machines. Memory that is there stays as it is.
void populate(const Pieces& pieces) {
#if defined(MADV_POPULATE_WRITE)
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  for (const auto& piece : pieces) {
    const uintptr_t from = reinterpret_cast<uintptr_t>(piece.data()) / page * page;
    const uintptr_t end = reinterpret_cast<uintptr_t>(piece.data()) + piece.size();
    // An older kernel refuses, and pages come as they are read into.
    if (::madvise(reinterpret_cast<void*>(from), end - from, MADV_POPULATE_WRITE) != 0) return;
  }
#endif
}

void encode(uint32_t value, uint8_t* out) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<uint8_t>(value >> (8 * i));
}

}  // namespace

Status write_record(const std::string& path, std::span<const uint8_t> header, const Pieces& pieces) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file.get() < 0) return failed("make", path, errno);
  uint8_t end[4];
  encode(checksum(header, pieces), end);
  std::vector<iovec> all = vectors(header, pieces, end);
  if (const int error = move_all(::writev, file.get(), all); error != 0) {
    (void)::unlink(path.c_str());
    return failed("write", path, error < 0 ? EIO : error);
  }
  // The disk begins at once; what is written is soon no burden on the page cache.
  (void)::sync_file_range(file.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
  return Status();
}

Status read_record(const std::string& path, size_t header_bytes, const Pieces& pieces) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.get() < 0) return failed("open", path, errno);
  uint8_t end[4];
  size_t bytes = header_bytes + sizeof end;
  for (const auto& piece : pieces) bytes += piece.size();
  struct stat info;
  if (::fstat(file.get(), &info) != 0) return failed("read", path, errno);
  if (!S_ISREG(info.st_mode)) return failed("read", path, "not a regular file");
  if (static_cast<uint64_t>(info.st_size) != bytes)
    return failed("read", path, "it has " + std::to_string(info.st_size) + " bytes, needed " + std::to_string(bytes));
  (void)::posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  populate(pieces);
  std::vector<uint8_t> header(header_bytes);
  std::vector<iovec> all = vectors(header, pieces, end);
  const int error = move_all(::readv, file.get(), all);
  (void)::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  if (error < 0) return failed("read", path, "it ends too early");
  if (error > 0) return failed("read", path, error);
  uint8_t found[4];
  encode(checksum(header, pieces), found);
  if (std::memcmp(found, end, sizeof end) != 0) return failed("read", path, "its checksum does not match");
  return Status();
}

}  // namespace moestro
