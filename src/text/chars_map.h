#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pare {

/// The precompiled character map of a SentencePiece model (NormalizerSpec.precompiled_charsmap): a double-array trie
/// (Yata et al., as in Darts-clone) from byte strings to places in a list of replacements.
class CharsMap {
 public:
  /// Throws Error if the bytes are no such map.
  explicit CharsMap(std::string_view bytes);

  struct Rewritten {
    std::string_view text;  // what stands for it
    size_t length;          // bytes of the input
  };
  /// What the longest mapped start of text, which is not empty and valid UTF-8, becomes; else its first character.
  Rewritten rewrite_start(std::string_view text) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;  // each ended by a zero byte
};

}  // namespace pare
