// NativeEngine of src/native/binding.ts: one model's layers, its slot arena and its read queue behind one object.
#pragma once
#include <napi.h>

#include <array>
#include <memory>
#include <vector>

#include "native/addon/options.h"

namespace moestro {

class Engine : public Napi::ObjectWrap<Engine>, private ReadGate {
 public:
  static Napi::FunctionReference* define(Napi::Env env);
  explicit Engine(const Napi::CallbackInfo& info);
  ~Engine() override;

 private:
  Napi::Value get_isa(const Napi::CallbackInfo& info);
  Napi::Value get_threads(const Napi::CallbackInfo& info);
  void load_dense(const Napi::CallbackInfo& info);
  void ready(const Napi::CallbackInfo& info);
  void set_batch(const Napi::CallbackInfo& info);
  void embed(const Napi::CallbackInfo& info);
  void attention(const Napi::CallbackInfo& info);
  void route(const Napi::CallbackInfo& info);
  void submit_reads(const Napi::CallbackInfo& info);
  void shared_ffn(const Napi::CallbackInfo& info);
  Napi::Value run_experts(const Napi::CallbackInfo& info);
  void finish_layer(const Napi::CallbackInfo& info);
  void run_layers(const Napi::CallbackInfo& info);
  void hidden_states(const Napi::CallbackInfo& info);
  void logits(const Napi::CallbackInfo& info);
  Napi::Value largest_logit(const Napi::CallbackInfo& info);
  Napi::Value best_logits(const Napi::CallbackInfo& info);
  Napi::Value take_completions(const Napi::CallbackInfo& info);
  Napi::Value wait_completions(const Napi::CallbackInfo& info);
  Napi::Value cancel_read(const Napi::CallbackInfo& info);
  Napi::Value promote_read(const Napi::CallbackInfo& info);
  void predict(const Napi::CallbackInfo& info);
  void collect_importance(const Napi::CallbackInfo& info);
  Napi::Value importance(const Napi::CallbackInfo& info);
  Napi::Value io_stats(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  void move_slots(const Napi::CallbackInfo& info);
  void populate_slots(const Napi::CallbackInfo& info);
  void discard_slots(const Napi::CallbackInfo& info);
  void discard_kv(const Napi::CallbackInfo& info);
  void copy_kv(const Napi::CallbackInfo& info);
  void save_kv(const Napi::CallbackInfo& info);
  void load_kv(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  // Planes of an expert's slots up to `level`; throws where one is none of the arena. `whose` begins its name: "a ".
  ExpertPlanes planes_of(Napi::Env env, const char* whose, int level, int scale_slot, const int32_t* bit_slots) const;
  struct LayerSlots;
  bool group_resident(Napi::Env env, int level, const LayerSlots& slots, std::span<const uint16_t> ids);

  // ReadGate
  bool finished(int64_t ticket, int* error) override;
  bool advance(bool block) override;

  void check_open(Napi::Env env) const;
  void check_batch(Napi::Env env) const;
  int layer_argument(const Napi::CallbackInfo& info) const;
  std::array<int, 4> slots_argument(const Napi::CallbackInfo& info) const;
  int block_argument(const Napi::CallbackInfo& info, size_t index, const char* what) const;
  std::span<const int32_t> rows_argument(const Napi::CallbackInfo& info) const;
  std::span<const float> logits_argument(const Napi::CallbackInfo& info) const;
  Napi::Value move_completions(const Napi::CallbackInfo& info);

  std::shared_ptr<Ledger> ledger_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<SlotArena> arena_;
  std::unique_ptr<ReadQueue> queue_;

  // State of each ticket modulo its size: kIdle, kPending, or the errno it ended with (0 when it landed).
  static constexpr int kTickets = 1 << 16, kIdle = -2, kPending = -1;
  std::vector<int32_t> ticket_state_;
  std::vector<ReadCompletion> landed_;  // not yet taken by TypeScript
  int64_t reads_open_ = 0;              // submitted and not landed
  std::vector<ReadCompletion> fresh_;
  std::vector<ExpertGroup> groups_;
  std::vector<uint8_t> assigned_;
  // Of run_layers: by expert, where its assignments begin; those of one layer.
  std::vector<int32_t> expert_first_, assignments_;
};

}  // namespace moestro
