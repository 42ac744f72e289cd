#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "text/normalizer.h"
#include "text/token_matcher.h"
#include "text/tokenizer.h"

namespace pare {

/// Cuts the tokens out of a text that stand for themselves, as the tokenizers library does: some in the text as it is,
/// some in the normalized text.
class AddedTokens {
 public:
  AddedTokens(const TokenizerData& data, const Normalizer& normalizer);

  /// A stretch of plain text, or a token (id >= 0) and the text it took.
  struct Part {
    std::string_view text;
    int32_t id = -1;
    bool first = false;  // begins the text
  };
  using Visit = FunctionRef<void(const Part&)>;
  void cut_plain(std::string_view text, bool parse_special, Visit visit) const {
    cut(plain_, text, parse_special, visit);
  }
  void cut_normalized(std::string_view text, bool parse_special, Visit visit) const {
    cut(normalized_, text, parse_special, visit);
  }

 private:
  void cut(const TokenMatcher& matcher, std::string_view text, bool parse_special, Visit visit) const;
  std::vector<AddedToken> tokens_;
  TokenMatcher plain_, normalized_;  // values are places in tokens_
};

/// Pieces of a SentencePiece model that its own algorithm finds whole in the text: user-defined ones that are not added
/// tokens.
std::vector<int32_t> symbol_pieces(const TokenizerData& data);

}  // namespace pare
