// One model file, opened so that reading it leaves nothing in the page cache.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "native/base/status.h"

namespace moestro {

constexpr uint64_t kDirectAlignment = 4096;  // of offsets, lengths and addresses under O_DIRECT

// Owns the descriptor. Direct when the file system takes O_DIRECT, which only a real read can tell.
class DiskFile {
 public:
  // Errors: IO_ERROR (missing, not a regular file, or its first block cannot be read).
  static Result<std::unique_ptr<DiskFile>> open(const std::string& path, bool try_direct);
  ~DiskFile();
  DiskFile(const DiskFile&) = delete;
  DiskFile& operator=(const DiskFile&) = delete;

  int descriptor() const { return descriptor_; }
  bool direct() const { return direct_; }
  // The size as of now: a file may be cut while it is open. 0 when it cannot be told.
  uint64_t size() const;
  // Drops [offset, offset + bytes) from the page cache after a buffered read. Thread-safe; nothing when direct.
  void forget(uint64_t offset, uint64_t bytes) const;

 private:
  DiskFile(int descriptor, bool direct) : descriptor_(descriptor), direct_(direct) {}
  int descriptor_;
  bool direct_;
};

}  // namespace moestro
