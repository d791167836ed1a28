// One anonymous mapping, cut to a 2 MiB boundary so that the system can back it with huge pages.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "native/memory/memory.h"

namespace moestro {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

Status out_of_memory(size_t bytes, const std::string& purpose, int error) {
  return Status("OUT_OF_MEMORY",
                "Cannot allocate " + std::to_string(bytes) + " bytes for \"" + purpose + "\": " + std::strerror(error));
}

void touch(uint8_t* data, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kPage) {
    volatile uint8_t* const byte = data + at;
    *byte = *byte;
  }
}

// Gives every page a physical one now; what is written there stays. Linux 5.14 does so in one call that can refuse;
// before that, writing back what is there does.
int populate(uint8_t* data, size_t bytes) {
#ifdef MADV_POPULATE_WRITE
  while (madvise(data, bytes, MADV_POPULATE_WRITE) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    if (errno != EINVAL && errno != ENOSYS) return errno;
    touch(data, bytes);
    return 0;
  }
#else
  touch(data, bytes);
#endif
  return 0;
}

}  // namespace

Result<AlignedBuffer> AlignedBuffer::allocate(size_t bytes, std::shared_ptr<Ledger> ledger, const std::string& purpose,
                                              bool prefault, bool small_pages) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  if (bytes > SIZE_MAX / 2) return out_of_memory(bytes, purpose, ENOMEM);
  const size_t size = round_up(bytes, kPage);
  const size_t alignment = size >= kHugePage ? kHugePage : kPage;
  const size_t reserve = size + alignment - kPage;
  void* raw = mmap(nullptr, reserve, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return out_of_memory(bytes, purpose, errno);

  // Keep the aligned middle, give the ends back.
  uint8_t* const base = static_cast<uint8_t*>(raw);
  uint8_t* const data =
      base + (round_up(reinterpret_cast<uintptr_t>(base), alignment) - reinterpret_cast<uintptr_t>(base));
  if (data > base) munmap(base, data - base);
  const size_t tail = static_cast<size_t>(base + reserve - (data + size));
  if (tail > 0) munmap(data + size, tail);

  buffer.data_ = data;
  buffer.size_ = size;
  buffer.mapping_ = data;
  buffer.mapping_size_ = size;
  // A refusal (no huge pages in this kernel) costs speed only.
  if (size >= kHugePage) (void)madvise(data, size, small_pages ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
  if (prefault) {
    // On failure the destructor of `buffer` unmaps; the ledger has not heard of it yet.
    if (const int error = moestro::populate(data, size); error != 0) return out_of_memory(bytes, purpose, error);
  }
  buffer.ledger_ = std::move(ledger);
  buffer.purpose_ = purpose;
  if (buffer.ledger_) buffer.ledger_->add(purpose, static_cast<int64_t>(size));
  return buffer;
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapping_size_(std::exchange(other.mapping_size_, 0)),
      ledger_(std::move(other.ledger_)),
      purpose_(std::move(other.purpose_)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  AlignedBuffer taken(std::move(other));  // also right when `other` is this one
  std::swap(data_, taken.data_);
  std::swap(size_, taken.size_);
  std::swap(mapping_, taken.mapping_);
  std::swap(mapping_size_, taken.mapping_size_);
  std::swap(ledger_, taken.ledger_);
  std::swap(purpose_, taken.purpose_);
  return *this;
}

AlignedBuffer::~AlignedBuffer() {
  if (mapping_ == nullptr) return;
  munmap(mapping_, mapping_size_);
  if (ledger_) ledger_->add(purpose_, -static_cast<int64_t>(size_));
}

Status AlignedBuffer::populate(size_t offset, size_t bytes) {
  if (offset >= size_ || bytes == 0) return Status();
  const size_t first = offset / kPage * kPage;
  const size_t end = round_up(offset + std::min(bytes, size_ - offset), kPage);
  if (const int error = moestro::populate(data_ + first, end - first); error != 0) {
    return out_of_memory(end - first, purpose_, error);
  }
  return Status();
}

void AlignedBuffer::discard(size_t offset, size_t bytes) {
  if (offset >= size_) return;
  const size_t end = offset + std::min(bytes, size_ - offset);
  const size_t first_page = std::min(round_up(offset, kPage), end);
  const size_t last_page = std::max(first_page, end / kPage * kPage);
  // Pages that are only partly inside keep their memory; their part is cleared by hand.
  std::memset(data_ + offset, 0, first_page - offset);
  std::memset(data_ + last_page, 0, end - last_page);
  if (last_page == first_page) return;
  if (madvise(data_ + first_page, last_page - first_page, MADV_DONTNEED) != 0) {
    std::memset(data_ + first_page, 0, last_page - first_page);
  }
}

}  // namespace moestro
