// Who holds how many bytes of native memory right now.
#include <mutex>

#include "native/memory/memory.h"

namespace moestro {

struct Ledger::State {
  mutable std::mutex mutex;
  std::map<std::string, int64_t> bytes;
};

Ledger::Ledger() : state_(std::make_unique<State>()) {}
Ledger::~Ledger() = default;

void Ledger::add(const std::string& purpose, int64_t bytes) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->bytes[purpose] += bytes;
}

std::map<std::string, int64_t> Ledger::snapshot() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->bytes;
}

int64_t Ledger::total() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  int64_t sum = 0;
  for (const auto& [purpose, bytes] : state_->bytes) sum += bytes;
  return sum;
}

}  // namespace moestro
