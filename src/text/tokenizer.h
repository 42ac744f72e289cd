#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace pare {

/// A token's role, with the numbers of GGUF's tokenizer.ggml.token_type (and SentencePiece's Type).
enum class TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

enum class TokenizerKind : uint8_t {
  kByteLevelBpe,      // GPT-2 style: bytes as printable characters, ranked merges, a pre-tokenizer pattern
  kSentencePieceBpe,  // Llama 1 and 2: pieces of characters, U+2581 for spaces, byte fallback
};

/// One rewriting of the text before it is split (tokenizer.json's "normalizer").
struct NormalizerStep {
  enum class Kind : uint8_t {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kStripLeft,   // white space at the start
    kStripRight,  // white space at the end
    kPrepend,     // content before text that is not empty
    kReplace,     // every match of pattern (a regular expression in Oniguruma's syntax) by content
    kCharsMap,    // content is the precompiled character map of a SentencePiece model
  };
  Kind kind = Kind::kNfc;
  std::string pattern, content;
  bool operator==(const NormalizerStep&) const = default;
};

/// What becomes of the matches of a split: pieces of their own, nothing, part of a neighbour, or one piece a run.
enum class SplitBehavior : uint8_t { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

enum class PrefixSpace : uint8_t { kNever, kFirst, kAlways };

/// One cutting of the text into words (tokenizer.json's "pre_tokenizer").
struct PreTokenizerStep {
  enum class Kind : uint8_t {
    kSplit,      // at the matches of pattern (a regular expression in Oniguruma's syntax)
    kByteLevel,  // prefix kAlways puts a space before text that starts with none, split_words cuts by GPT-2's pattern,
                 // then bytes become characters
    kMetaspace,  // spaces become U+2581, one is put first as prefix says, split_words cuts before each
  };
  Kind kind = Kind::kSplit;
  std::string pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what does not match counts as the match
  PrefixSpace prefix = PrefixSpace::kNever;
  bool split_words = false;
  bool operator==(const PreTokenizerStep&) const = default;
};

/// A token that is found in the text as it stands, before anything is split or merged.
struct AddedToken {
  int32_t id = 0;
  bool special = false;      // left out by decode(), and found only with parse_special
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space after it along
  bool single_word = false;  // only where no word character touches it
  bool normalized = false;   // its normalized form is looked for in the normalized text
  bool operator==(const AddedToken&) const = default;
};

struct Merge {
  int32_t left = 0, right = 0;  // ids
  bool operator==(const Merge&) const = default;
};

/// A tokenizer as data, the same whether it came from tokenizer.json, tokenizer.model or GGUF metadata.
struct TokenizerData {
  TokenizerKind kind = TokenizerKind::kByteLevelBpe;
  std::vector<std::string> pieces;  // by id, as stored (byte-level characters, U+2581)
  std::vector<float> scores;        // by id; empty where merges rank
  std::vector<TokenType> types;     // by id
  std::vector<Merge> merges;        // best first; empty for SentencePiece BPE whose scores rank
  std::vector<AddedToken> added;    // by rising id
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  std::string gguf_pre;  // tokenizer.ggml.pre that stands for pre_tokenizer ("llama-bpe", ...), "" if none does
  std::string end_of_word_suffix;    // of a word's last character (CLIP's "</w>")
  bool ignore_merges = false;        // a whole word that is a piece is taken as it is
  bool byte_fallback = false;        // a character that is no piece becomes its bytes' pieces ("<0x0A>")
  bool fuse_unknown = false;         // a run of unknown characters is one unknown token
  bool strip_decoded_space = false;  // decode() leaves out the first space, which encode() put there
  std::optional<int32_t> bos, eos, unknown, padding;
  std::vector<int32_t> end_of_generation;  // every id after which generation stops (eos, <|eot_id|>, ...)
  bool add_bos = false, add_eos = false;
  std::string chat_template;  // Jinja text as the model's authors wrote it, "" if there is none
  std::string source;         // the file it was read from, for messages

  int64_t size() const { return static_cast<int64_t>(pieces.size()); }
};

/// Unused pieces up to `size`: a model's embedding may have more rows than its tokenizer has pieces.
void pad_vocabulary(TokenizerData& data, int64_t size);

struct EncodeOptions {
  bool add_special = true;    // put bos/eos as the model expects
  bool parse_special = true;  // "<|eot_id|>" in the text becomes that token rather than plain characters
};

/// Text <-> ids. Immutable and safe to share between threads.
class Tokenizer {
 public:
  /// Throws Error for data that contradicts itself (merges of unknown pieces, a pattern that does not compile).
  explicit Tokenizer(TokenizerData data);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  const TokenizerData& data() const;
  /// Bytes that are not UTF-8 are read as U+FFFD, one for each longest start of a character, as Python's
  /// bytes.decode("utf-8", "replace") has it. Throws Error if the tokenizer's patterns take unreasonably long on it.
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  /// Bytes of the ids together; control tokens are left out unless keep_special. Ids out of range throw Error.
  std::string decode(std::span<const int32_t> ids, bool keep_special = false) const;
  /// The bytes one token stands for when it is streamed (may be part of a UTF-8 character).
  std::string decode_one(int32_t id, bool keep_special = false) const;
  bool ends_generation(int32_t id) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// From a Hugging Face folder: tokenizer.json if it is there, else tokenizer.model; tokenizer_config.json,
/// special_tokens_map.json and generation_config.json add bos, eos, and the chat template. Throws Error if the folder
/// has neither, or a tokenizer.json uses a part that pare does not know (which one is named).
TokenizerData read_tokenizer_folder(const std::filesystem::path& folder);
/// tokenizer.json's text (and, may be empty, tokenizer_config.json's); `where` names it in errors.
TokenizerData parse_tokenizer_json(std::string_view json, std::string_view config_json, std::string_view where);
/// A SentencePiece model's bytes (protocol buffer, own reader).
TokenizerData parse_sentencepiece(std::span<const std::byte> bytes, std::string_view where);
/// tokenizer.ggml.* of a GGUF file.
TokenizerData read_tokenizer_gguf(const GgufMetadata& metadata);
/// The reverse: sets tokenizer.ggml.* and tokenizer.chat_template. What those cannot say (patterns without a name,
/// normalizers, how added tokens match) goes to pare.tokenizer.*. Throws Error for a tokenizer that GGUF cannot hold.
void write_tokenizer_gguf(const TokenizerData& data, GgufMetadata& metadata);
/// tokenizer.json and tokenizer_config.json texts that transformers reads to the same ids.
struct TokenizerFiles {
  std::string tokenizer_json, tokenizer_config_json;
};
/// Throws Error for what tokenizer.json cannot say exactly (a SentencePiece character map).
TokenizerFiles to_tokenizer_files(const TokenizerData& data);

}  // namespace pare
