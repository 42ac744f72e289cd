#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace pare {

struct RegexMatch {
  size_t begin, end;
};

/// A compiled regular expression of a tokenizer. Immutable and shared between threads; each search uses a Matcher.
class Regex {
 public:
  /// pattern is in Oniguruma's syntax. Throws Error for one that does not compile.
  explicit Regex(std::string_view pattern);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  class Matcher;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

/// Finds matches in one text, in time that hostile patterns cannot stretch: work is measured, and processor time far
/// beyond what any useful pattern needs ends in an Error.
class Regex::Matcher {
 public:
  explicit Matcher(const Regex& regex);
  ~Matcher();
  Matcher(Matcher&&) noexcept;
  Matcher& operator=(Matcher&&) noexcept;

  /// The leftmost match that begins at `start` or later. text is valid UTF-8; what is before start is seen by
  /// lookbehind.
  std::optional<RegexMatch> find(std::string_view text, size_t start);
  /// Calls found(match) for each match in order; as in Oniguruma's users, an empty match right after a match is none.
  template <class Found>
  void for_each(std::string_view text, Found&& found);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

template <class Found>
void Regex::Matcher::for_each(std::string_view text, Found&& found) {
  size_t start = 0;
  std::optional<size_t> last_end;
  while (start <= text.size()) {
    const std::optional<RegexMatch> match = find(text, start);
    if (!match) return;
    if (match->begin == match->end && last_end == match->end) {
      ++start;
      while (start < text.size() && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) ++start;
      continue;
    }
    start = match->end;
    last_end = match->end;
    found(*match);
  }
}

}  // namespace pare
