#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace pare {

/// Where in a JSON text something stands: the keys of the objects around it, outermost first.
struct JsonPlace {
  std::span<const std::string> keys;
  bool in_array;  // an element of an array, rather than a member
};

/// null, true or false, a number (unsigned if it can be; double if it is no 64-bit integer), a string.
using JsonScalar = std::variant<std::nullptr_t, bool, uint64_t, int64_t, double, std::string_view>;

/// Hears what a JSON text holds, in order. What it throws ends the walk.
class JsonListener {
 public:
  virtual ~JsonListener() = default;
  virtual void begin(const JsonPlace& place, bool array) = 0;
  virtual void scalar(const JsonPlace& place, const JsonScalar& value) = 0;
  virtual void end(const JsonPlace& place, bool array) = 0;
};

/// Walks through JSON of an untrusted file without building a document, which for a header of the largest legal size
/// would take gigabytes. Throws Error, naming `where`, for what is not JSON, nests deeper than 16 levels, or repeats a
/// key within an object.
void walk_json(std::string_view text, std::string_view where, JsonListener& listener);

/// A JSON string literal of `text`, which must be UTF-8.
std::string json_literal(std::string_view text);

}  // namespace pare
