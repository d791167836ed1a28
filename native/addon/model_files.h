// The functions that make model files: checked arguments over native/quantise.
#pragma once
#include <napi.h>

namespace moestro {

Napi::Value js_lock_file(const Napi::CallbackInfo& info);
Napi::Value js_dequantise(const Napi::CallbackInfo& info);
Napi::Value js_quantise_expert(const Napi::CallbackInfo& info);
Napi::Value js_quantise_dense(const Napi::CallbackInfo& info);
Napi::Value js_dequantise_expert(const Napi::CallbackInfo& info);
Napi::Value js_dequantise_dense(const Napi::CallbackInfo& info);

}  // namespace moestro
