// Option objects of the addon, read and checked: what src/native/binding.ts types as Architecture, PlaneTables and
// NativeEngineOptions.
#pragma once
#include <napi.h>

#include "native/io/read_queue.h"
#include "native/layers/model.h"

namespace moestro {

struct ArenaOptions {
  int bit_slots, scale_slots;
  size_t bit_slot_bytes, scale_slot_bytes;
};

struct EngineOptions {
  Dims dims;
  ModelOptions model;
  ArenaOptions arena;
  ReadQueueOptions io;
};

PlaneTables parse_tables(Napi::Env env, const Napi::Value& value);
Dims parse_dims(Napi::Env env, const Napi::Object& architecture, int context);
EngineOptions parse_engine_options(Napi::Env env, const Napi::Value& value);

// The instruction set that MOESTRO_ISA names, or the best detected one where it is unset, empty or "auto".
Isa chosen_isa(Napi::Env env);

}  // namespace moestro
