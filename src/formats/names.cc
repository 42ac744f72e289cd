#include "formats/names.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>

namespace pare {
namespace {

constexpr size_t kLongestQuote = 100;  // bytes: an error stays one readable line

/// Bytes of the well-formed UTF-8 character that `text` starts with (the Unicode standard's table 3-7); 0 if it does
/// not.
size_t character_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const auto continues = [&](size_t i, uint8_t low = 0x80, uint8_t high = 0xbf) {
    return byte(i) >= low && byte(i) <= high;
  };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const uint8_t low = first == 0xe0 ? 0xa0 : 0x80;   // no overlong forms
    const uint8_t high = first == 0xed ? 0x9f : 0xbf;  // no surrogates
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const uint8_t low = first == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = first == 0xf4 ? 0x8f : 0xbf;  // up to U+10FFFF
    return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

/// As above, but 0 for control characters too.
size_t printable_bytes(std::string_view text) {
  const auto first = static_cast<uint8_t>(text[0]);
  if (first < 0x20 || first == 0x7f) return 0;
  if (first == 0xc2 && text.size() > 1 && static_cast<uint8_t>(text[1]) < 0xa0) return 0;  // U+0080 to U+009F
  return character_bytes(text);
}

}  // namespace

bool is_printable(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = printable_bytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

std::string quote_name(std::string_view name) {
  std::string result = "'";
  while (!name.empty() && result.size() <= kLongestQuote) {
    const size_t bytes = printable_bytes(name);
    if (bytes == 0) {
      result += fmt::format("\\x{:02x}", static_cast<uint8_t>(name[0]));
    } else {
      result += name.substr(0, bytes);
    }
    name.remove_prefix(bytes == 0 ? 1 : bytes);
  }
  return result + (name.empty() ? "'" : "...'");
}

}  // namespace pare
