// Checked arguments at the Node-API border, and the way back for errors. Everything here throws Napi::Error, which
// node-addon-api turns into a JavaScript exception; nothing behind the border throws.
#pragma once
#include <napi.h>

#include <span>
#include <string>

#include "native/base/status.h"

namespace moestro {

[[noreturn]] inline void throw_error(Napi::Env env, const std::string& code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  throw error;
}

[[noreturn]] inline void throw_status(Napi::Env env, const Status& status) {
  throw_error(env, status.code(), status.message());
}

inline void check(Napi::Env env, const Status& status) {
  if (!status.ok()) throw_status(env, status);
}

[[noreturn]] inline void throw_argument(Napi::Env env, const std::string& what, const std::string& needed) {
  throw_error(env, "INVALID_ARGUMENT", "Cannot call the addon: " + what + " must be " + needed);
}

// Property `name` of `object`, undefined when absent.
inline Napi::Value property(const Napi::Object& object, const char* name) { return object.Get(name); }

inline double to_number(Napi::Env env, const Napi::Value& value, const std::string& what, double min, double max) {
  if (!value.IsNumber()) throw_argument(env, what, "a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= min && number <= max))
    throw_argument(
        env, what,
        "between " + std::to_string(min) + " and " + std::to_string(max) + ", found " + std::to_string(number));
  return number;
}

inline int to_int(Napi::Env env, const Napi::Value& value, const std::string& what, int min, int max) {
  const double number = to_number(env, value, what, min, max);
  if (number != static_cast<int>(number)) throw_argument(env, what, "a whole number");
  return static_cast<int>(number);
}

inline bool to_bool(Napi::Env env, const Napi::Value& value, const std::string& what) {
  if (!value.IsBoolean()) throw_argument(env, what, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

inline std::string to_string(Napi::Env env, const Napi::Value& value, const std::string& what) {
  if (!value.IsString()) throw_argument(env, what, "a string");
  return value.As<Napi::String>().Utf8Value();
}

inline Napi::Object to_object(Napi::Env env, const Napi::Value& value, const std::string& what) {
  if (!value.IsObject()) throw_argument(env, what, "an object");
  return value.As<Napi::Object>();
}

template <typename T>
struct ArrayKind;
template <>
struct ArrayKind<uint8_t> {
  static constexpr napi_typedarray_type type = napi_uint8_array;
  static constexpr const char* name = "a Uint8Array";
};
template <>
struct ArrayKind<uint16_t> {
  static constexpr napi_typedarray_type type = napi_uint16_array;
  static constexpr const char* name = "a Uint16Array";
};
template <>
struct ArrayKind<int32_t> {
  static constexpr napi_typedarray_type type = napi_int32_array;
  static constexpr const char* name = "an Int32Array";
};
template <>
struct ArrayKind<float> {
  static constexpr napi_typedarray_type type = napi_float32_array;
  static constexpr const char* name = "a Float32Array";
};
template <>
struct ArrayKind<double> {
  static constexpr napi_typedarray_type type = napi_float64_array;
  static constexpr const char* name = "a Float64Array";
};

// A view of a typed array of at least `count` elements; the array stays the caller's.
template <typename T>
std::span<T> to_span(Napi::Env env, const Napi::Value& value, const char* what, size_t count) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  bool is_typed_array = false;
  napi_is_typedarray(env, value, &is_typed_array);
  if (!is_typed_array || napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != ArrayKind<T>::type)
    throw_argument(env, what, ArrayKind<T>::name);
  if (length < count)
    throw_argument(env, what, "of at least " + std::to_string(count) + " elements, found " + std::to_string(length));
  return {static_cast<T*>(data), length};
}

}  // namespace moestro
