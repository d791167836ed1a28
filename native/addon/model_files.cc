#include "native/addon/model_files.h"

#include <sys/file.h>

#include <cerrno>
#include <cstring>

#include "native/addon/args.h"
#include "native/addon/options.h"
#include "native/quantise/quantise.h"

namespace moestro {
namespace {

constexpr int kMaxSide = 1 << 24;

SourceMatrix source_matrix(Napi::Env env, const Napi::Value& dtype, const Napi::Value& bytes, const char* what) {
  const auto view = to_span<uint8_t>(env, bytes, what, 0);
  return {to_string(env, dtype, std::string(what) + "'s dtype"), view.data(), view.size()};
}

ExpertShape expert_shape(Napi::Env env, const Napi::Value& hidden, const Napi::Value& expert) {
  return {to_int(env, hidden, "hiddenSize", 32, 65536), to_int(env, expert, "expertSize", 32, 65536)};
}

}  // namespace

Napi::Value js_lock_file(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int file = to_int(env, info[0], "fd", 0, 1 << 30);
  int result = 0;
  do result = flock(file, LOCK_EX | LOCK_NB);
  while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EWOULDBLOCK)
    throw_error(env, "IO_ERROR", std::string("Cannot lock a file: ") + std::strerror(errno));
  return Napi::Boolean::New(env, result == 0);
}

Napi::Value js_dequantise(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto bytes = to_span<uint8_t>(env, info[1], "bytes", 0);
  const auto count = static_cast<size_t>(to_number(env, info[2], "count", 0, 1e12));
  const auto out = to_span<float>(env, info[3], "out", count);
  check(env, dequantise(to_string(env, info[0], "dtype"), bytes.data(), bytes.size(), count, out.data()));
  return env.Undefined();
}

Napi::Value js_quantise_expert(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Object r = to_object(env, info[0], "request");
  const ExpertShape shape = expert_shape(env, r.Get("hiddenSize"), r.Get("expertSize"));
  const SourceMatrix gate = source_matrix(env, r.Get("gateDtype"), r.Get("gate"), "gate");
  const SourceMatrix up = source_matrix(env, r.Get("upDtype"), r.Get("up"), "up");
  const SourceMatrix down = source_matrix(env, r.Get("downDtype"), r.Get("down"), "down");
  const PlaneTables tables = parse_tables(env, r.Get("tables"));
  const bool residual = to_bool(env, r.Get("residual"), "residual");
  ExpertImportance importance;
  if (const Napi::Value given = r.Get("importance"); given.IsObject()) {
    const Napi::Object object = given.As<Napi::Object>();
    const auto gate_up = to_span<float>(env, object.Get("gateUp"), "importance.gateUp", shape.hidden_size);
    const size_t width = gate_up.size() / static_cast<size_t>(shape.hidden_size);
    const auto down = to_span<float>(env, object.Get("down"), "importance.down", width * shape.expert_size);
    if (gate_up.size() != width * shape.hidden_size || down.size() != width * shape.expert_size || width > 4096)
      throw_error(env, "INVALID_ARGUMENT",
                  "Cannot use the importance: got " + std::to_string(gate_up.size()) + " and " +
                      std::to_string(down.size()) + " numbers, needed as many a column of both");
    importance = {gate_up.data(), down.data(), static_cast<int>(width)};
  }
  const Napi::Value given_level = r.Get("onlyLevel");
  const int only_level = given_level.IsUndefined() ? 0 : to_int(env, given_level, "onlyLevel", 2, 4);
  const auto out = to_span<uint8_t>(env, r.Get("out"), "out", 0);
  LevelErrors errors{};
  check(env, quantise_expert(shape, gate, up, down, tables, residual, only_level, importance, out.data(), out.size(),
                             &errors));
  Napi::Object by_level = Napi::Object::New(env);
  const char* names[] = {"2", "3", "4", "8"};
  for (int i = 0; i < 4; ++i) by_level.Set(names[i], Napi::Number::New(env, errors[i]));
  Napi::Object result = Napi::Object::New(env);
  result.Set("relativeError", by_level);
  return result;
}

Napi::Value js_quantise_dense(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const SourceMatrix source = source_matrix(env, info[0], info[1], "bytes");
  const int rows = to_int(env, info[2], "rows", 1, kMaxSide), cols = to_int(env, info[3], "cols", 32, kMaxSide);
  const int bits = to_int(env, info[4], "bits", 4, 8);
  const auto out = to_span<uint8_t>(env, info[5], "out", 0);
  check(env, quantise_dense(source, rows, cols, bits, out.data(), out.size()));
  return env.Undefined();
}

Napi::Value js_dequantise_expert(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto record = to_span<uint8_t>(env, info[0], "record", 0);
  const ExpertShape shape = expert_shape(env, info[1], info[2]);
  const PlaneTables tables = parse_tables(env, info[3]);
  const int level = to_int(env, info[4], "level", 2, 8);
  const size_t count = static_cast<size_t>(shape.hidden_size) * shape.expert_size;
  const auto gate = to_span<float>(env, info[5], "gate", count);
  const auto up = to_span<float>(env, info[6], "up", count);
  const auto down = to_span<float>(env, info[7], "down", count);
  check(env,
        dequantise_expert(shape, record.data(), record.size(), tables, level, gate.data(), up.data(), down.data()));
  return env.Undefined();
}

Napi::Value js_dequantise_dense(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto blocks = to_span<uint8_t>(env, info[0], "blocks", 0);
  const int rows = to_int(env, info[1], "rows", 1, kMaxSide), cols = to_int(env, info[2], "cols", 32, kMaxSide);
  const int bits = to_int(env, info[3], "bits", 4, 8);
  const auto out = to_span<float>(env, info[4], "out", static_cast<size_t>(rows) * cols);
  check(env, dequantise_dense(blocks.data(), blocks.size(), rows, cols, bits, out.data()));
  return env.Undefined();
}

}  // namespace moestro
