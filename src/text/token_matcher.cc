#include "text/token_matcher.h"

#include <algorithm>

#include "base/error.h"
#include "formats/names.h"

namespace pare {

TokenMatcher::TokenMatcher(std::vector<Entry> entries) : entries_(std::move(entries)) {
  std::erase_if(entries_, [](const Entry& entry) { return entry.text.empty(); });
  std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.text < b.text; });
  const auto same = [](const Entry& a, const Entry& b) { return a.text == b.text; };
  entries_.erase(std::unique(entries_.begin(), entries_.end(), same), entries_.end());
  for (const Entry& entry : entries_) {
    if (entry.text.size() > kMaxLength) {
      fail("token {} has {} bytes, expected at most {}", quote_name(entry.text), entry.text.size(), kMaxLength);
    }
    first_.set(static_cast<uint8_t>(entry.text[0]));
  }
}

std::optional<TokenMatcher::Found> TokenMatcher::match_at(std::string_view text, size_t start) const {
  if (start >= text.size() || !first_.test(static_cast<uint8_t>(text[start]))) return std::nullopt;
  // The entries that begin with text[start, start + depth) are a range, which each byte narrows; in it the one that
  // ends there stands first.
  auto low = entries_.begin(), high = entries_.end();
  std::optional<Found> longest;
  for (size_t depth = 0; start + depth < text.size(); ++depth) {
    const auto byte = static_cast<uint8_t>(text[start + depth]);
    const auto byte_of = [depth](const Entry& entry) {
      return depth < entry.text.size() ? static_cast<uint8_t>(entry.text[depth]) : -1;
    };
    low = std::partition_point(low, high, [&](const Entry& entry) { return byte_of(entry) < byte; });
    high = std::partition_point(low, high, [&](const Entry& entry) { return byte_of(entry) <= byte; });
    if (low == high) break;
    if (low->text.size() == depth + 1) longest = {start, start + depth + 1, low->value};
  }
  return longest;
}

std::optional<TokenMatcher::Found> TokenMatcher::find(std::string_view text, size_t start) const {
  if (entries_.empty()) return std::nullopt;
  for (size_t i = start; i < text.size(); ++i) {
    if (!first_.test(static_cast<uint8_t>(text[i]))) continue;
    if (const auto found = match_at(text, i)) return found;
  }
  return std::nullopt;
}

}  // namespace pare
