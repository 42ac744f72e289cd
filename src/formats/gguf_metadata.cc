#include <algorithm>
#include <concepts>
#include <limits>
#include <type_traits>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/names.h"

namespace pare {
namespace {

template <class T>
constexpr bool kIsInteger = std::is_integral_v<T> && !std::is_same_v<T, bool>;
template <class T>
constexpr bool kIsNumber = kIsInteger<T> || std::is_floating_point_v<T>;

template <class T>
struct ElementOf {
  using Type = void;
};
template <class T>
struct ElementOf<std::vector<T>> {
  using Type = T;
};

template <class T>
const char* scalar_name() {
  if constexpr (std::is_same_v<T, bool>) return "a bool";
  if constexpr (std::is_same_v<T, std::string>) return "a string";
  if constexpr (kIsInteger<T>) return "an integer";
  return "a float";
}

template <class T>
const char* array_name() {
  if constexpr (std::is_same_v<T, bool>) return "an array of bools";
  if constexpr (std::is_same_v<T, std::string>) return "an array of strings";
  if constexpr (kIsInteger<T>) return "an array of integers";
  return "an array of floats";
}

const char* kind_of(const GgufValue& value) {
  return std::visit(
      []<class T>(const T&) {
        using Element = typename ElementOf<T>::Type;
        if constexpr (std::is_void_v<Element>) {
          return scalar_name<T>();
        } else {
          return array_name<Element>();
        }
      },
      value);
}

[[noreturn]] void wrong_kind(const GgufMetadata& metadata, std::string_view key, const GgufValue& value,
                             const char* expected) {
  fail("{}: key {} is {}, expected {}", metadata.file(), quote_name(key), kind_of(value), expected);
}

[[noreturn]] void missing(const GgufMetadata& metadata, std::string_view key, const char* expected) {
  fail("{}: key {} is missing, expected {}", metadata.file(), quote_name(key), expected);
}

/// A 64-bit signed copy, which only large uint64_t do not have.
template <class T>
int64_t widened(const GgufMetadata& metadata, std::string_view key, T value) {
  constexpr auto kLargest = std::numeric_limits<int64_t>::max();
  if constexpr (std::is_same_v<T, uint64_t>) {
    if (value > static_cast<uint64_t>(kLargest)) {
      fail("{}: key {} holds {}, expected at most {}", metadata.file(), quote_name(key), value, kLargest);
    }
  }
  return static_cast<int64_t>(value);
}

}  // namespace

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const auto& entry) { return entry.first == key; });
  return found == entries_.end() ? nullptr : &found->second;
}

void GgufMetadata::set(std::string key, GgufValue value) {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const auto& entry) { return entry.first == key; });
  if (found == entries_.end()) {
    entries_.emplace_back(std::move(key), std::move(value));
  } else {
    found->second = std::move(value);
  }
}

void GgufMetadata::erase(std::string_view key) {
  std::erase_if(entries_, [&](const auto& entry) { return entry.first == key; });
}

std::optional<int64_t> GgufMetadata::find_int(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return {};
  return std::visit(
      [&]<class T>(const T& held) -> int64_t {
        if constexpr (kIsInteger<T>) {
          return widened(*this, key, held);
        } else {
          wrong_kind(*this, key, *value, "an integer");
        }
      },
      *value);
}

int64_t GgufMetadata::get_int(std::string_view key) const {
  const std::optional<int64_t> value = find_int(key);
  if (!value) missing(*this, key, "an integer");
  return *value;
}

std::optional<double> GgufMetadata::find_number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return {};
  return std::visit(
      [&]<class T>(const T& held) -> double {
        if constexpr (kIsNumber<T>) {
          return static_cast<double>(held);
        } else {
          wrong_kind(*this, key, *value, "a number");
        }
      },
      *value);
}

double GgufMetadata::get_number(std::string_view key) const {
  const std::optional<double> value = find_number(key);
  if (!value) missing(*this, key, "a number");
  return *value;
}

std::optional<bool> GgufMetadata::find_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return {};
  const bool* held = std::get_if<bool>(value);
  if (!held) wrong_kind(*this, key, *value, "a bool");
  return *held;
}

const std::string* GgufMetadata::find_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return nullptr;
  const auto* held = std::get_if<std::string>(value);
  if (!held) wrong_kind(*this, key, *value, "a string");
  return held;
}

const std::string& GgufMetadata::get_string(std::string_view key) const {
  const std::string* value = find_string(key);
  if (!value) missing(*this, key, "a string");
  return *value;
}

const std::vector<std::string>* GgufMetadata::find_strings(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return nullptr;
  const auto* held = std::get_if<std::vector<std::string>>(value);
  if (!held) wrong_kind(*this, key, *value, "an array of strings");
  return held;
}

std::optional<std::vector<int64_t>> GgufMetadata::find_ints(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return {};
  return std::visit(
      [&]<class T>(const T& held) -> std::vector<int64_t> {
        if constexpr (kIsInteger<typename ElementOf<T>::Type>) {
          std::vector<int64_t> result;
          result.reserve(held.size());
          for (const auto element : held) result.push_back(widened(*this, key, element));
          return result;
        } else {
          wrong_kind(*this, key, *value, "an array of integers");
        }
      },
      *value);
}

std::optional<std::vector<double>> GgufMetadata::find_numbers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return {};
  return std::visit(
      [&]<class T>(const T& held) -> std::vector<double> {
        if constexpr (kIsNumber<typename ElementOf<T>::Type>) {
          std::vector<double> result;
          result.reserve(held.size());
          for (const auto element : held) result.push_back(static_cast<double>(element));
          return result;
        } else {
          wrong_kind(*this, key, *value, "an array of numbers");
        }
      },
      *value);
}

}  // namespace pare
