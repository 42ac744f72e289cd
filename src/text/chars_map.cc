#include "text/chars_map.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"

namespace pare {
namespace {

constexpr size_t kMaxKey = 64;  // bytes; the maps that exist stay below 32, and a trie with a circle in it must end

uint32_t read_u32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value |= static_cast<uint32_t>(static_cast<uint8_t>(bytes[at + i])) << (8 * i);
  return value;
}

// A unit of the trie holds a label, a flag that a value ends here, and the offset of its children, or is a value.
bool has_value(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t value_of(uint32_t unit) { return unit & 0x7fffffffu; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000ffu; }
uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 0x200u) >> 6); }

}  // namespace

CharsMap::CharsMap(std::string_view bytes) {
  if (bytes.size() < 4) fail("a character map of {} bytes, expected at least 4", bytes.size());
  const size_t trie_bytes = read_u32(bytes, 0);
  if (trie_bytes % 4 != 0 || trie_bytes == 0 || trie_bytes > bytes.size() - 4) {
    fail("a character map whose trie has {} bytes, expected a multiple of 4 up to {}", trie_bytes, bytes.size() - 4);
  }
  units_.resize(trie_bytes / 4);
  for (size_t i = 0; i < units_.size(); ++i) units_[i] = read_u32(bytes, 4 + 4 * i);
  replacements_ = bytes.substr(4 + trie_bytes);
  replacements_.push_back('\0');
}

CharsMap::Rewritten CharsMap::rewrite_start(std::string_view text) const {
  size_t longest = 0, replacement = 0;
  size_t at = offset_of(units_[0]);
  for (size_t i = 0; i < std::min(text.size(), kMaxKey); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    at ^= byte;
    if (at >= units_.size() || label_of(units_[at]) != byte) break;
    const uint32_t unit = units_[at];
    at ^= offset_of(unit);
    if (!has_value(unit)) continue;
    if (at >= units_.size()) break;
    longest = i + 1;
    replacement = value_of(units_[at]);
  }
  if (longest == 0 || replacement >= replacements_.size()) {
    const size_t length = std::min(utf8_length(text[0]), text.size());
    return {text.substr(0, length), length};
  }
  return {std::string_view(replacements_.c_str() + replacement), longest};
}

}  // namespace pare
