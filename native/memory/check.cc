#include "native/base/check.h"

#include <algorithm>
#include <utility>

#include "native/base/random.h"
#include "native/memory/memory.h"

namespace moestro {
namespace {

bool all_zero(const uint8_t* p, size_t bytes) {
  return std::all_of(p, p + bytes, [](uint8_t b) { return b == 0; });
}

uintptr_t address(const uint8_t* p) { return reinterpret_cast<uintptr_t>(p); }

void check_buffers(CheckLog* log, Random* random) {
  auto ledger = std::make_shared<Ledger>();
  constexpr size_t kHugePage = size_t{2} << 20;
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{4097}, kHugePage - 1, kHugePage, 2 * kHugePage + 1}) {
    const std::string what = "AlignedBuffer of " + std::to_string(bytes) + " bytes ";
    const bool prefault = random->happens(0.5);
    auto made = AlignedBuffer::allocate(bytes, ledger, "check", prefault);
    if (!log->expect(made.ok(), what + "cannot be made: " + made.status().message())) continue;
    AlignedBuffer buffer = std::move(made.value());
    log->expect(buffer.size() == (bytes + 4095) / 4096 * 4096, what + "has another size");
    log->expect(address(buffer.data()) % (buffer.size() >= kHugePage ? kHugePage : 4096) == 0, what + "is misaligned");
    log->expect(all_zero(buffer.data(), buffer.size()), what + "is not zeroed");
    log->expect(ledger->snapshot()["check"] == static_cast<int64_t>(buffer.size()), what + "is not in the ledger");

    std::fill_n(buffer.data(), buffer.size(), uint8_t{7});
    const size_t from = random->between(0, buffer.size() - 1);
    const size_t count = random->between(0, buffer.size() - from);
    buffer.discard(from, count);
    const auto is_seven = [](uint8_t b) { return b == 7; };
    log->expect(all_zero(buffer.data() + from, count) && std::all_of(buffer.data(), buffer.data() + from, is_seven) &&
                    std::all_of(buffer.data() + from + count, buffer.data() + buffer.size(), is_seven),
                what + "discards other bytes than " + std::to_string(count) + " from " + std::to_string(from));

    const size_t again = random->between(0, buffer.size() - 1);
    const std::vector<uint8_t> before(buffer.data(), buffer.data() + buffer.size());
    log->expect(buffer.populate(again, random->between(0, bytes)).ok(), what + "cannot be populated");
    log->expect(std::equal(before.begin(), before.end(), buffer.data()), what + "is changed by populating");

    AlignedBuffer moved;
    moved = std::move(buffer);
    log->expect(moved.data() != nullptr && moved.size() >= bytes, what + "is lost when moved");
    moved = AlignedBuffer();
    log->expect(ledger->total() == 0, what + "stays in the ledger when freed");
  }
  auto absurd = AlignedBuffer::allocate(SIZE_MAX / 4, ledger, "check");
  log->expect(!absurd.ok() && absurd.status().code() == "OUT_OF_MEMORY", "AlignedBuffer grants 4 EiB");
  log->expect(ledger->total() == 0, "Ledger keeps what was refused");
}

void check_arena(CheckLog* log, Random* random) {
  auto ledger = std::make_shared<Ledger>();
  const int bit_slots = static_cast<int>(random->between(1, 40)),
            scale_slots = static_cast<int>(random->between(1, 20));
  const size_t bit_bytes = 4096 * random->between(1, 30), scale_bytes = 4096 * random->between(1, 10);
  {
    auto made = SlotArena::create(bit_slots, bit_bytes, scale_slots, scale_bytes, ledger);
    if (!log->expect(made.ok(), "SlotArena cannot be made: " + made.status().message())) return;
    const SlotArena& arena = *made.value();
    for (int i = 0; i < bit_slots; ++i) std::fill_n(arena.bit_slot(i), bit_bytes, static_cast<uint8_t>(i + 1));
    for (int i = 0; i < scale_slots; ++i) std::fill_n(arena.scale_slot(i), scale_bytes, static_cast<uint8_t>(i + 101));
    bool apart = true, aligned = true;
    const auto holds = [](const uint8_t* p, size_t n, int value) {
      return std::all_of(p, p + n, [=](uint8_t b) { return b == value; });
    };
    for (int i = 0; i < bit_slots; ++i) {
      apart = apart && holds(arena.bit_slot(i), bit_bytes, i + 1);
      aligned = aligned && address(arena.bit_slot(i)) % 4096 == 0;
    }
    for (int i = 0; i < scale_slots; ++i) {
      apart = apart && holds(arena.scale_slot(i), scale_bytes, i + 101);
      aligned = aligned && address(arena.scale_slot(i)) % 4096 == 0;
    }
    log->expect(apart, "SlotArena slots overlap");
    const int first = static_cast<int>(random->between(0, bit_slots)), end = bit_slots;
    made.value()->discard_bits(first, end);
    made.value()->discard_scales(scale_slots / 2, scale_slots);
    bool given = true;
    for (int i = 0; i < bit_slots; ++i) given = given && holds(arena.bit_slot(i), bit_bytes, i < first ? i + 1 : 0);
    for (int i = 0; i < scale_slots; ++i)
      given = given && holds(arena.scale_slot(i), scale_bytes, i < scale_slots / 2 ? i + 101 : 0);
    log->expect(made.value()->populate_bits(first, end).ok() && made.value()->populate_scales(0, scale_slots).ok(),
                "SlotArena does not give slots memory again");
    log->expect(given, "SlotArena gives other slots back than it is told");
    log->expect(aligned, "SlotArena slots are not aligned for direct reads");
    log->expect(ledger->total() == static_cast<int64_t>(bit_slots * bit_bytes + scale_slots * scale_bytes),
                "SlotArena holds other bytes than the ledger says");
  }
  log->expect(ledger->total() == 0, "SlotArena stays in the ledger when freed");
  for (const auto& [count, bytes] : {std::pair<int, size_t>{-1, 4096}, {1, 4095}, {1, 0}}) {
    auto refused = SlotArena::create(count, bytes, 1, 4096, ledger);
    log->expect(!refused.ok() && refused.status().code() == "INVALID_ARGUMENT",
                "SlotArena takes " + std::to_string(count) + " slots of " + std::to_string(bytes) + " bytes");
  }
}

}  // namespace

std::vector<std::string> check_memory(uint64_t seed) {
  CheckLog log(seed);
  Random random(seed);
  check_buffers(&log, &random);
  check_arena(&log, &random);
  return log.take();
}

}  // namespace moestro
