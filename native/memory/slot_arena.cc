// The arena: two mappings, cut into uniform slots.
#include <utility>

#include "native/memory/memory.h"

namespace moestro {
namespace {

constexpr size_t kDirectAlignment = 4096;

Status check_slots(const char* what, int count, size_t bytes) {
  if (count < 0 || (count > 0 && bytes == 0) || bytes % kDirectAlignment != 0) {
    return Status("INVALID_ARGUMENT", std::string("Cannot make ") + std::to_string(count) + " " + what + " slots of " +
                                          std::to_string(bytes) + " bytes: needed a positive multiple of " +
                                          std::to_string(kDirectAlignment) + " bytes and a count of 0 or more");
  }
  if (count > 0 && bytes > SIZE_MAX / 4 / static_cast<size_t>(count)) {
    return Status("OUT_OF_MEMORY", std::string("Cannot allocate ") + std::to_string(count) + " " + what + " slots of " +
                                       std::to_string(bytes) + " bytes: more than an address can name");
  }
  return Status();
}

}  // namespace

Result<std::unique_ptr<SlotArena>> SlotArena::create(int bit_slots, size_t bit_slot_bytes, int scale_slots,
                                                     size_t scale_slot_bytes, std::shared_ptr<Ledger> ledger) {
  if (Status status = check_slots("bit", bit_slots, bit_slot_bytes); !status.ok()) return status;
  if (Status status = check_slots("scale", scale_slots, scale_slot_bytes); !status.ok()) return status;
  auto bits = AlignedBuffer::allocate(static_cast<size_t>(bit_slots) * bit_slot_bytes, ledger, "slots");
  if (!bits.ok()) return bits.status();
  auto scales = AlignedBuffer::allocate(static_cast<size_t>(scale_slots) * scale_slot_bytes, ledger, "slots");
  if (!scales.ok()) return scales.status();
  auto arena = std::make_unique<SlotArena>();
  arena->bits_ = std::move(bits.value());
  arena->scales_ = std::move(scales.value());
  arena->bit_slots_ = bit_slots;
  arena->scale_slots_ = scale_slots;
  arena->bit_slot_bytes_ = bit_slot_bytes;
  arena->scale_slot_bytes_ = scale_slot_bytes;
  return arena;
}

}  // namespace moestro
