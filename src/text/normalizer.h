#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/chars_map.h"
#include "text/regex.h"
#include "text/token_matcher.h"
#include "text/tokenizer.h"

namespace pare {

/// Runs NormalizerSteps. Immutable; shared between threads.
class Normalizer {
 public:
  /// `symbols` (may be empty) stand as they are through a character map. Throws Error for steps that do not compile.
  Normalizer(std::span<const NormalizerStep> steps, TokenMatcher symbols);
  bool empty() const { return steps_.empty(); }
  /// text is valid UTF-8; so is the result.
  std::string normalize(std::string_view text) const;

 private:
  struct Step {
    NormalizerStep::Kind kind;
    std::string content;
    std::string literal;  // kReplace: what the pattern matches if it is plain text, "" if it is not
    std::optional<Regex> pattern;
    std::optional<CharsMap> map;
  };
  std::string apply(const Step& step, std::string text) const;
  std::string map_characters(const CharsMap& map, std::string_view text) const;
  std::vector<Step> steps_;
  TokenMatcher symbols_;
};

/// What a SentencePiece model's NormalizerSpec does, as steps.
std::vector<NormalizerStep> sentencepiece_normalizer(std::string charsmap, bool remove_extra_whitespaces,
                                                     bool add_dummy_prefix);

}  // namespace pare
