// NativeEngine.runLayers: layer after layer without asking anybody, for as long as every expert that a router chooses
// is in memory. Then nothing is to be decided, and a decode step is one call instead of five a layer.
#include <algorithm>
#include <chrono>

#include "native/addon/args.h"
#include "native/addon/engine.h"

namespace moestro {

// All experts of one layer as far as they are in memory, by expert.
struct Engine::LayerSlots {
  std::span<const uint8_t> resident_bits;  // [experts]
  std::span<const int32_t> scale_slots;    // [experts]
  std::span<const int32_t> bit_slots;      // [experts][kBitSlotsMax]
};

namespace {

constexpr int kBitSlotsMax = 8;
constexpr size_t kReachedFields = 3;

}  // namespace

// Groups of the layer's tokens by expert, all at `level`, into groups_; false when one of them is not in memory. Throws
// where a slot is none of the arena.
bool Engine::group_resident(Napi::Env env, int level, const LayerSlots& slots, std::span<const uint16_t> ids) {
  std::fill(expert_first_.begin(), expert_first_.end(), 0);
  for (const uint16_t id : ids) {
    if (slots.resident_bits[id] < level) return false;
    ++expert_first_[id];
  }
  groups_.clear();
  int first = 0;
  for (size_t id = 0; id < expert_first_.size(); ++id) {
    const int count = expert_first_[id];
    if (count == 0) continue;
    ExpertGroup g{};
    g.expert = static_cast<int>(id);
    g.level = level;
    g.ticket = -1;
    g.assignments = assignments_.data() + first;
    g.count = count;
    g.planes = planes_of(env, "a ", level, slots.scale_slots[id], slots.bit_slots.data() + id * kBitSlotsMax);
    groups_.push_back(g);
    expert_first_[id] = first;
    first += count;
  }
  for (size_t at = 0; at < ids.size(); ++at) assignments_[expert_first_[ids[at]]++] = static_cast<int32_t>(at);
  return true;
}

void Engine::run_layers(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int from = layer_argument(info);
  const Dims& d = model_->dims();
  const int level = to_int(env, info[1], "level", 2, 8);
  if (level != 2 && level != 3 && level != 4 && level != 8) throw_argument(env, "level", "2, 3, 4 or 8");
  const double span_ms = to_number(env, info[2], "spanMs", 0, 1e6);
  const size_t moe_layers = std::count(d.is_moe.begin(), d.is_moe.end(), true);
  const size_t keys = moe_layers * d.experts;
  const size_t pairs = static_cast<size_t>(model_->batch_tokens()) * d.top_k;
  const auto resident_bits = to_span<uint8_t>(env, info[3], "residentBits", keys);
  const auto scale_slots = to_span<int32_t>(env, info[4], "scaleSlots", keys);
  const auto bit_slots = to_span<int32_t>(env, info[5], "bitSlots", keys * kBitSlotsMax);
  const auto ids = to_span<uint16_t>(env, info[6], "ids", moe_layers * pairs);
  const auto weights = to_span<float>(env, info[7], "weights", moe_layers * pairs);
  const auto reached = to_span<int32_t>(env, info[8], "reached", kReachedFields);

  const auto began = std::chrono::steady_clock::now();
  size_t moe = std::count(d.is_moe.begin(), d.is_moe.begin() + from, true);
  int layer = from, experts_run = 0;
  bool is_routed = false;
  while (layer < d.layers) {
    model_->attention(layer);
    if (!d.is_moe[layer]) {
      model_->shared_ffn(layer);
      model_->finish_layer(layer, nullptr);
      ++layer;
      continue;
    }
    const auto layer_ids = ids.subspan(moe * pairs, pairs);
    const auto layer_weights = weights.subspan(moe * pairs, pairs);
    model_->route(layer, layer_ids.data(), layer_weights.data());
    const LayerSlots slots = {resident_bits.subspan(moe * d.experts, d.experts),
                              scale_slots.subspan(moe * d.experts, d.experts),
                              bit_slots.subspan(moe * d.experts * kBitSlotsMax, d.experts * size_t{kBitSlotsMax})};
    if (!group_resident(env, level, slots, layer_ids)) {
      std::fill_n(assigned_.begin(), pairs, 0);
      is_routed = true;
      break;
    }
    model_->shared_ffn(layer);
    model_->run_experts(layer, groups_, *this);
    model_->finish_layer(layer, layer_weights.data());
    experts_run += static_cast<int>(groups_.size());
    ++moe;
    ++layer;
    const std::chrono::duration<double, std::milli> passed = std::chrono::steady_clock::now() - began;
    if (passed.count() >= span_ms) break;
  }
  reached[0] = layer;
  reached[1] = is_routed ? 1 : 0;
  reached[2] = experts_run;
}

}  // namespace moestro
