// Aligned memory that the ledger knows of, on huge pages where the system grants them, and the slot arena.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "native/base/status.h"

namespace moestro {

// Bytes of live native allocations by purpose ("dense", "kv", "slots", "scratch", ...). Thread-safe.
class Ledger {
 public:
  void add(const std::string& purpose, int64_t bytes);  // negative when freed
  std::map<std::string, int64_t> snapshot() const;
  int64_t total() const;
  Ledger();
  ~Ledger();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// One anonymous mapping, zeroed, 2 MiB aligned when at least 2 MiB long (else 4 KiB), with MADV_HUGEPAGE asked for.
// `bytes` is rounded up to whole pages of 4 KiB. Pages are touched on first use unless `prefault`; no swap is reserved
// for them, so that more may be addressed than there is. `small_pages` for memory that is touched and given back a
// little at a time, in many places: no huge pages are asked for. allocate() fails with OUT_OF_MEMORY.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  static Result<AlignedBuffer> allocate(size_t bytes, std::shared_ptr<Ledger> ledger, const std::string& purpose,
                                        bool prefault = false, bool small_pages = false);
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  ~AlignedBuffer();

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  T* as(size_t byte_offset = 0) const {
    return reinterpret_cast<T*>(data_ + byte_offset);
  }
  // Gives [offset, offset + bytes) physical pages before anybody writes there. Errors: OUT_OF_MEMORY.
  Status populate(size_t offset, size_t bytes);
  // Gives the physical pages of [offset, offset + bytes) back to the system; their content becomes zero.
  void discard(size_t offset, size_t bytes);

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  void* mapping_ = nullptr;
  size_t mapping_size_ = 0;
  std::shared_ptr<Ledger> ledger_;
  std::string purpose_;
};

// All memory in which experts live: `bit_slots` slots of one bit of one expert each, and `scale_slots` slots for the
// scales of one expert each (the base plane takes one scale slot and two bit slots; every further bit one bit slot).
// Slots are addresses only: who owns which is decided in src/experts/residency.ts and nowhere else. They may be more
// than memory holds: one takes memory when it is first written, and until discard() gives it back.
class SlotArena {
 public:
  // Sizes are multiples of 4096 so that O_DIRECT reads land in slots. Errors: OUT_OF_MEMORY, INVALID_ARGUMENT.
  static Result<std::unique_ptr<SlotArena>> create(int bit_slots, size_t bit_slot_bytes, int scale_slots,
                                                   size_t scale_slot_bytes, std::shared_ptr<Ledger> ledger);
  uint8_t* bit_slot(int index) const { return bits_.data() + static_cast<size_t>(index) * bit_slot_bytes_; }
  uint8_t* scale_slot(int index) const { return scales_.data() + static_cast<size_t>(index) * scale_slot_bytes_; }
  int bit_slots() const { return bit_slots_; }
  int scale_slots() const { return scale_slots_; }
  size_t bit_slot_bytes() const { return bit_slot_bytes_; }
  size_t scale_slot_bytes() const { return scale_slot_bytes_; }
  // Gives free slots [first, end) their memory now. Errors: OUT_OF_MEMORY.
  Status populate_bits(int first, int end) {
    return bits_.populate(static_cast<size_t>(first) * bit_slot_bytes_,
                          static_cast<size_t>(end - first) * bit_slot_bytes_);
  }
  Status populate_scales(int first, int end) {
    return scales_.populate(static_cast<size_t>(first) * scale_slot_bytes_,
                            static_cast<size_t>(end - first) * scale_slot_bytes_);
  }
  // Gives the memory of slots [first, end) back; nobody may read or write them meanwhile.
  void discard_bits(int first, int end) {
    bits_.discard(static_cast<size_t>(first) * bit_slot_bytes_, static_cast<size_t>(end - first) * bit_slot_bytes_);
  }
  void discard_scales(int first, int end) {
    scales_.discard(static_cast<size_t>(first) * scale_slot_bytes_,
                    static_cast<size_t>(end - first) * scale_slot_bytes_);
  }

 private:
  AlignedBuffer bits_, scales_;
  int bit_slots_ = 0, scale_slots_ = 0;
  size_t bit_slot_bytes_ = 0, scale_slot_bytes_ = 0;
};

}  // namespace moestro
