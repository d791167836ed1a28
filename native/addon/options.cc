#include "native/addon/options.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "native/addon/args.h"

namespace moestro {
namespace {

void parse_table(Napi::Env env, const Napi::Object& tables, const char* name, size_t entries, uint8_t* out) {
  const Napi::Value value = tables.Get(name);
  if (!value.IsArray() || value.As<Napi::Array>().Length() != entries)
    throw_argument(env, std::string("tables.") + name, "an array of " + std::to_string(entries) + " numbers");
  const Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < 16; ++i)
    out[i] = static_cast<uint8_t>(
        to_int(env, array.Get(i % entries), std::string("an entry of tables.") + name, -127, 127) + 128);
}

int optional_int(Napi::Env env, const Napi::Object& object, const char* name, int min, int max, int otherwise) {
  const Napi::Value value = object.Get(name);
  return value.IsUndefined() || value.IsNull() ? otherwise : to_int(env, value, name, min, max);
}

Isa parse_isa_name(Napi::Env env, const std::string& name, const char* what) {
  const std::vector<Isa> detected = detected_isas();
  Isa isa;
  if (parse_isa(name, &isa) && std::find(detected.begin(), detected.end(), isa) != detected.end()) return isa;
  std::string names;
  for (const Isa one : detected) names += std::string(names.empty() ? "" : ", ") + isa_name(one);
  throw_argument(env, what, "one of this machine's instruction sets (" + names + "), found \"" + name + "\"");
}

}  // namespace

PlaneTables parse_tables(Napi::Env env, const Napi::Value& value) {
  const Napi::Object object = to_object(env, value, "tables");
  PlaneTables tables{};
  parse_table(env, object, "t2", 4, tables.t2);
  parse_table(env, object, "t3", 8, tables.t3);
  parse_table(env, object, "t4", 16, tables.t4);
  tables.residual_step = to_int(env, object.Get("residualStep"), "tables.residualStep", 1, 8);
  tables.residual_offset = to_int(env, object.Get("residualOffset"), "tables.residualOffset", -127, 127);
  return tables;
}

Dims parse_dims(Napi::Env env, const Napi::Object& a, int context) {
  const auto number = [&](const char* name, int min, int max) {
    return to_int(env, a.Get(name), std::string("architecture.") + name, min, max);
  };
  const auto flag = [&](const char* name) { return to_bool(env, a.Get(name), std::string("architecture.") + name); };
  constexpr int kMax = 1 << 22;
  Dims d{};
  d.hidden = number("hiddenSize", 1, kMax);
  d.layers = number("layerCount", 1, 1024);
  d.heads = number("headCount", 1, 1024);
  d.kv_heads = number("kvHeadCount", 1, 1024);
  d.head_dim = number("headDim", 1, 1024);
  d.vocab = number("vocabSize", 1, kMax);
  d.context = context;
  d.rope_theta = to_number(env, a.Get("ropeTheta"), "architecture.ropeTheta", 1, 1e12);
  d.eps = static_cast<float>(to_number(env, a.Get("rmsNormEps"), "architecture.rmsNormEps", 0, 1));
  const std::string norm = to_string(env, a.Get("qkNorm"), "architecture.qkNorm");
  if (norm != "none" && norm != "head" && norm != "full")
    throw_argument(env, "architecture.qkNorm", "none, head or full");
  d.qk_norm = norm == "none" ? QkNorm::none : norm == "head" ? QkNorm::head : QkNorm::full;
  d.attention_bias = flag("attentionBias");
  d.tied_embeddings = flag("tiedEmbeddings");
  d.experts = number("expertCount", 1, 1024);
  d.top_k = number("topK", 1, 64);
  d.expert_size = number("expertSize", 1, 65536);
  d.norm_top_k = flag("normTopK");
  d.shared_size = number("sharedExpertSize", 0, 1 << 20);
  d.shared_gate = flag("sharedExpertGate");
  d.dense_ffn = number("denseFfnSize", 0, 1 << 20);
  const Napi::Value kinds = a.Get("layerKinds");
  if (!kinds.IsArray()) throw_argument(env, "architecture.layerKinds", "an array");
  const Napi::Array list = kinds.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length() && i < 1024; ++i)
    d.is_moe.push_back(to_string(env, list.Get(i), "architecture.layerKinds") == "moe");
  d.sliding_window = optional_int(env, a, "slidingWindow", 0, kMax, 0);
  check(env, check_dims(d));
  return d;
}

Isa chosen_isa(Napi::Env env) {
  const char* wanted = std::getenv("MOESTRO_ISA");
  const bool is_named = wanted != nullptr && wanted[0] != 0 && std::strcmp(wanted, "auto") != 0;
  if (is_named) return parse_isa_name(env, wanted, "MOESTRO_ISA");
  return detected_isas().front();
}

EngineOptions parse_engine_options(Napi::Env env, const Napi::Value& value) {
  const Napi::Object o = to_object(env, value, "options");
  EngineOptions options{};
  const int context = to_int(env, o.Get("contextLength"), "contextLength", 1, 1 << 22);
  options.dims = parse_dims(env, to_object(env, o.Get("architecture"), "architecture"), context);

  ModelOptions& m = options.model;
  m.tables = parse_tables(env, o.Get("tables"));
  m.threads = to_int(env, o.Get("threads"), "threads", 1, 256);
  const Napi::Value isa = o.Get("isa");
  m.isa = isa.IsUndefined() || isa.IsNull() ? chosen_isa(env) : parse_isa_name(env, to_string(env, isa, "isa"), "isa");
  m.max_batch_tokens = to_int(env, o.Get("maxBatchTokens"), "maxBatchTokens", 1, 8192);
  m.max_logit_rows = to_int(env, o.Get("maxLogitRows"), "maxLogitRows", 1, 8192);
  const Napi::Object kv = to_object(env, o.Get("kv"), "kv");
  const std::string kv_type = to_string(env, kv.Get("type"), "kv.type");
  if (kv_type != "f16" && kv_type != "int8") throw_argument(env, "kv.type", "f16 or int8");
  m.kv_type = kv_type == "f16" ? KvType::f16 : KvType::int8;
  m.kv_block_tokens = to_int(env, kv.Get("blockTokens"), "kv.blockTokens", 16, 4096);
  m.kv_blocks = to_int(env, kv.Get("blocks"), "kv.blocks", 1, 1 << 20);

  if (const Napi::Value kinds = o.Get("denseKinds"); kinds.IsObject()) {
    const Napi::Object by_name = kinds.As<Napi::Object>();
    const Napi::Array names = by_name.GetPropertyNames();
    for (uint32_t i = 0; i < names.Length(); ++i) {
      const std::string name = to_string(env, names.Get(i), "denseKinds' names");
      const std::string kind = to_string(env, by_name.Get(name), "denseKinds[\"" + name + "\"]");
      if (kind != "q4" && kind != "q6" && kind != "q8")
        throw_argument(env, "denseKinds[\"" + name + "\"]", "q4, q6 or q8, found \"" + kind + "\"");
      m.dense_kinds[name] = kind;
    }
  }

  const Napi::Object arena = to_object(env, o.Get("arena"), "arena");
  options.arena.bit_slots = to_int(env, arena.Get("bitSlots"), "arena.bitSlots", 2, 1 << 24);
  options.arena.scale_slots = to_int(env, arena.Get("scaleSlots"), "arena.scaleSlots", 1, 1 << 24);
  options.arena.bit_slot_bytes = to_int(env, arena.Get("bitSlotBytes"), "arena.bitSlotBytes", 4096, 1 << 30);
  options.arena.scale_slot_bytes = to_int(env, arena.Get("scaleSlotBytes"), "arena.scaleSlotBytes", 4096, 1 << 30);
  const Dims& d = options.dims;
  const size_t tiles = static_cast<size_t>(3) * d.hidden * d.expert_size / kTileWeights;
  if (options.arena.bit_slot_bytes < tiles * kBitTileBytes)
    throw_argument(env, "arena.bitSlotBytes", "at least " + std::to_string(tiles * kBitTileBytes));
  const size_t scale_bytes = tiles * kScaleTileBytes + 2 * (2 * static_cast<size_t>(d.expert_size) + d.hidden);
  if (options.arena.scale_slot_bytes < scale_bytes)
    throw_argument(env, "arena.scaleSlotBytes", "at least " + std::to_string(scale_bytes));

  const Napi::Object io = to_object(env, o.Get("io"), "io");
  options.io.path = to_string(env, io.Get("path"), "io.path");
  const std::string backend = to_string(env, io.Get("backend"), "io.backend");
  if (backend == "automatic")
    options.io.backend = IoBackend::automatic;
  else if (backend == "io_uring")
    options.io.backend = IoBackend::io_uring;
  else if (backend == "pread")
    options.io.backend = IoBackend::pread;
  else
    throw_argument(env, "io.backend", "automatic, io_uring or pread, found \"" + backend + "\"");
  options.io.queue_depth = to_int(env, io.Get("queueDepth"), "io.queueDepth", 1, 256);
  options.io.direct = to_bool(env, io.Get("direct"), "io.direct");
  if (const Napi::Value part = io.Get("partBytes"); !part.IsUndefined())
    options.io.part_bytes = static_cast<uint32_t>(to_int(env, part, "io.partBytes", 4096, 1 << 30));
  const Napi::Value faults = io.Get("faultRanges");
  if (faults.IsArray()) {
    const Napi::Array list = faults.As<Napi::Array>();
    for (uint32_t i = 0; i + 1 < list.Length(); i += 2)
      options.io.fault_ranges.emplace_back(
          static_cast<uint64_t>(to_number(env, list.Get(i), "io.faultRanges", 0, 1e15)),
          static_cast<uint64_t>(to_number(env, list.Get(i + 1), "io.faultRanges", 0, 1e15)));
  }
  return options;
}

}  // namespace moestro
