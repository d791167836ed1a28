#include "native/base/resident_bytes.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>

namespace moestro {

uint64_t resident_bytes() {
  // Size and resident pages, then others, in pages. Open until the process ends.
  static const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  static const long page = sysconf(_SC_PAGESIZE);
  std::array<char, 128> text;
  const ssize_t length = file < 0 ? -1 : pread(file, text.data(), text.size(), 0);
  if (length <= 0) return 0;
  const char* const end = text.data() + length;
  uint64_t pages = 0;
  const auto size = std::from_chars(text.data(), end, pages);
  if (size.ec != std::errc() || size.ptr == end) return 0;
  const auto resident = std::from_chars(size.ptr + 1, end, pages);
  return resident.ec == std::errc() ? pages * page : 0;
}

}  // namespace moestro
