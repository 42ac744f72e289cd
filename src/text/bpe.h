#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/piece_index.h"
#include "text/tokenizer.h"

namespace pare {

/// Which pairs of symbols merge to what, and which merge comes first: an open-addressing table.
class MergeTable {
 public:
  struct Rule {
    int32_t rank = kNone;  // lower is better
    int32_t result = 0;
  };
  static constexpr int32_t kNone = INT32_MAX;

  void reserve(size_t rules);
  /// Adds or replaces.
  void set(int32_t left, int32_t right, Rule rule);
  /// A rule of rank kNone if the pair does not merge.
  Rule find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t pair = kEmpty;
    Rule rule;
  };
  static constexpr uint64_t kEmpty = UINT64_MAX;
  size_t slot_of(uint64_t pair) const;
  void grow(size_t slots);

  std::vector<Slot> slots_;
  size_t used_ = 0;
};

/// Merges symbols, always the pair of the best rank and the leftmost of those, until none merges. n log n for any
/// input.
class Merger {
 public:
  explicit Merger(const MergeTable& table) : table_(table) {}
  void merge(std::vector<int32_t>& symbols);

 private:
  void merge_short(std::vector<int32_t>& symbols);
  void merge_long(std::vector<int32_t>& symbols);
  void push_candidate(std::span<const int32_t> symbols, int32_t left);

  const MergeTable& table_;
  std::vector<MergeTable::Rule> rules_;  // of each symbol with the next
  std::vector<int32_t> next_, previous_;
  std::vector<uint64_t> heap_;  // rank above position: the smallest is the pair to merge
};

/// A BPE vocabulary ready for use: words to ids. Immutable; shared between threads.
class BpeModel {
 public:
  /// bytes[id] are the bytes of a byte-level piece. Both must outlive the model. Throws Error for data that contradicts
  /// itself.
  BpeModel(const TokenizerData& data, std::span<const std::string> bytes);

  /// One thread's working memory, and its cache of words.
  class Run {
   public:
    /// A cache pays from a few kilobytes of text on.
    Run(const BpeModel& model, bool cached);
    /// Appends the ids of one word (bytes, or for SentencePiece characters).
    void encode(std::string_view word, std::vector<int32_t>& ids);

   private:
    /// A cache line: most words of a text are short and were seen before.
    struct CachedWord {
      uint8_t length = 0, count = 0;
      char text[30] = {};
      int32_t ids[8] = {};
    };
    void encode_uncached(std::string_view word, std::vector<int32_t>& ids);
    void encode_cached(std::string_view word, std::vector<int32_t>& ids);
    const BpeModel& model_;
    Merger merger_;
    std::vector<int32_t> symbols_;
    std::vector<CachedWord> cache_;
  };

 private:
  void add_byte_symbols(const TokenizerData& data, const PieceIndex& ids);
  void add_character_symbols(const TokenizerData& data);
  void add_ranked_merges(const TokenizerData& data, const PieceIndex& ids);
  void add_scored_merges(const TokenizerData& data);
  void add_splits_of(int32_t id, std::string_view piece, int32_t rank, const PieceIndex& ids);
  void set_symbol(char32_t character, int32_t symbol);
  int32_t symbol_of(char32_t character) const;
  int32_t symbol_of(std::string_view text, const PieceIndex& ids);
  void split_bytes(std::string_view word, std::vector<int32_t>& symbols) const;
  void split_characters(std::string_view word, std::vector<int32_t>& symbols) const;
  void append_unknown(std::string_view character, std::vector<int32_t>& symbols) const;
  void finish(std::span<const int32_t> symbols, std::vector<int32_t>& ids) const;

  static constexpr int32_t kNoSymbol = -1;
  TokenizerKind kind_;
  int32_t pieces_ = 0;
  MergeTable table_;
  std::array<int32_t, 256> byte_symbol_{};       // the piece of a byte: byte-level, or of SentencePiece "<0x..>"
  std::array<int32_t, 256> last_byte_symbol_{};  // byte level: the same for the last byte of a word
  std::array<int32_t, 128> ascii_symbol_{};
  std::unordered_map<char32_t, int32_t> character_symbol_;
  // SentencePiece: characters that are no piece but occur in pieces can still be merged. Their symbols follow the
  // pieces.
  std::vector<std::string> extra_characters_;
  PieceIndex whole_words_{0};  // ignore_merges
  int32_t unknown_ = kNoSymbol;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
  bool cut_at_spaces_ = false;  // no merge joins a space symbol to what stands before it: each begins a word of its own
};

}  // namespace pare
