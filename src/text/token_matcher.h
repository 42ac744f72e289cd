#pragma once
#include <array>
#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pare {

/// Finds the leftmost-longest of a set of strings in a text.
class TokenMatcher {
 public:
  /// Added tokens longer than this are refused, so that a search stays linear in the text.
  static constexpr size_t kMaxLength = 1024;

  struct Entry {
    std::string text;
    int32_t value;
  };
  struct Found {
    size_t begin, end;
    int32_t value;
  };

  TokenMatcher() = default;
  /// Entries with an empty text are left out; of two with the same text the first counts. Throws Error for one that is
  /// too long.
  explicit TokenMatcher(std::vector<Entry> entries);

  bool empty() const { return entries_.empty(); }
  /// The first match at `start` or later, the longest if several begin there.
  std::optional<Found> find(std::string_view text, size_t start) const;
  /// The longest match that begins exactly at `start`.
  std::optional<Found> match_at(std::string_view text, size_t start) const;

 private:
  std::vector<Entry> entries_;  // sorted by text
  std::bitset<256> first_;      // bytes that an entry starts with
};

}  // namespace pare
