// The addon's entry: registers what src/native/binding.ts types. State belongs to the environment (thread), freed by
// its finalizer; any number of threads may load the addon.
#include <napi.h>

#include "native/addon/args.h"
#include "native/addon/engine.h"
#include "native/addon/model_files.h"
#include "native/base/check.h"
#include "native/base/crc32c.h"
#include "native/base/resident_bytes.h"
#include "native/kernels/check.h"

namespace moestro {
namespace {

struct EnvironmentState {
  std::unique_ptr<Napi::FunctionReference> engine;
};

Napi::Value cpu_features(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array detected = Napi::Array::New(env);
  uint32_t count = 0;
  for (const Isa isa : detected_isas()) detected.Set(count++, Napi::String::New(env, isa_name(isa)));
  Napi::Object result = Napi::Object::New(env);
  result.Set("detected", detected);
  result.Set("chosen", Napi::String::New(env, isa_name(chosen_isa(env))));
  return result;
}

Napi::Value checksum(const Napi::CallbackInfo& info) {
  const auto start = static_cast<uint32_t>(to_number(info.Env(), info[0], "crc", 0, 4294967295.0));
  const auto bytes = to_span<uint8_t>(info.Env(), info[1], "bytes", 0);
  return Napi::Number::New(info.Env(), crc32c(start, bytes.data(), bytes.size()));
}

Napi::Value resident(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(resident_bytes()));
}

Napi::Value create_engine(const Napi::CallbackInfo& info) {
  return info.Env().GetInstanceData<EnvironmentState>()->engine->New({info[0]});
}

Napi::Value lines(Napi::Env env, const std::vector<std::string>& failures) {
  Napi::Array result = Napi::Array::New(env, failures.size());
  for (uint32_t i = 0; i < failures.size(); ++i) result.Set(i, Napi::String::New(env, failures[i]));
  return result;
}

uint64_t seed_argument(const Napi::CallbackInfo& info) {
  return static_cast<uint64_t>(to_number(info.Env(), info[0], "seed", 0, 9007199254740991.0));
}

Napi::Value run_kernel_checks(const Napi::CallbackInfo& info) {
  return lines(info.Env(), check_kernels(seed_argument(info)));
}

Napi::Value run_base_checks(const Napi::CallbackInfo& info) {
  return lines(info.Env(), check_base(seed_argument(info), to_string(info.Env(), info[1], "scratchDirectory")));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* state = new EnvironmentState();
  state->engine.reset(Engine::define(env));
  env.SetInstanceData(state);
  const auto set = [&](const char* name, auto function) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  set("cpuFeatures", cpu_features);
  set("crc32c", checksum);
  set("residentBytes", resident);
  set("createEngine", create_engine);
  set("lockFile", js_lock_file);
  set("dequantise", js_dequantise);
  set("quantiseExpert", js_quantise_expert);
  set("quantiseDense", js_quantise_dense);
  set("dequantiseExpert", js_dequantise_expert);
  set("dequantiseDense", js_dequantise_dense);
  set("checkKernels", run_kernel_checks);
  set("checkBase", run_base_checks);
  return exports;
}

}  // namespace
}  // namespace moestro

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return moestro::init(env, exports); }

NODE_API_MODULE(moestro, init_addon)
