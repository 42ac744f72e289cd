#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "text/regex.h"
#include "text/tokenizer.h"

namespace pare {

/// GPT-2's pattern, which tokenizer.json's ByteLevel stands for.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Cuts normalized text into the words that are merged one by one. Immutable; shared between threads.
class PreTokenizer {
 public:
  /// Throws Error for steps that do not compile or do not fit together.
  explicit PreTokenizer(std::span<const PreTokenizerStep> steps);

  using Word = FunctionRef<void(std::string_view)>;

  /// One thread's working memory.
  class Run {
   public:
    explicit Run(const PreTokenizer& owner);
    /// Calls word() for each word in order, none of them empty: bytes of the text (byte level), or characters.
    /// `first` says that the text's original began the whole input (PrefixSpace::kFirst).
    void split(std::string_view text, bool first, Word word);

   private:
    struct Piece {
      std::string_view text;
      bool first;
    };
    void next(size_t step, Piece piece, Word word);
    void split_step(size_t step, Piece piece, Word word);
    void metaspace_step(size_t step, Piece piece, Word word);
    void prefix_step(size_t step, Piece piece, Word word);
    void bytes_step(size_t step, Piece piece, Word word);

    const PreTokenizer& owner_;
    std::vector<std::optional<Regex::Matcher>> matchers_;  // by step
  };

 private:
  struct Step {
    enum class Kind : uint8_t { kSplit, kPrefix, kBytes, kMetaspace } kind;
    PreTokenizerStep rule;
    std::optional<Regex> pattern;
  };
  std::vector<Step> steps_;
  bool ends_in_characters_ = false;  // steps after ByteLevel work on its characters
};

}  // namespace pare
