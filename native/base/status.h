// How native code reports failure: a stable code that becomes the JavaScript error's `code` unchanged, and a message
// that states the action, what was found and what was needed. No exceptions cross a folder's border.
#pragma once
#include <optional>
#include <string>
#include <utility>

namespace moestro {

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(std::string code, std::string message) : code_(std::move(code)), message_(std::move(message)) {}
  bool ok() const { return code_.empty(); }
  const std::string& code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  std::string code_;  // one of the codes of src/errors.ts; empty means success
  std::string message_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) {}
  bool ok() const { return value_.has_value(); }
  T& value() { return *value_; }
  const Status& status() const { return status_; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace moestro
