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
  kSentencePieceBpe,  // Llama 1 and 2: scored pieces, U+2581 for spaces, byte fallback
};

/// A tokenizer as data, the same whether it came from tokenizer.json, tokenizer.model or GGUF metadata.
struct TokenizerData {
  TokenizerKind kind = TokenizerKind::kByteLevelBpe;
  std::vector<std::string> pieces;  // by id, as stored (byte-level characters, U+2581)
  std::vector<float> scores;        // by id; empty for byte-level BPE
  std::vector<TokenType> types;     // by id
  std::vector<std::string> merges;  // "left right", best first; byte-level BPE, and SentencePiece converted to it
  // Byte-level BPE: what is done to text before merging, in order.
  std::vector<std::string>
      split_patterns;    // regular expressions of the pre-tokenizer (PCRE2 syntax), each isolating its matches
  std::string gguf_pre;  // tokenizer.ggml.pre that names these patterns ("llama-bpe", "gpt-2", ...), "" if unknown
  bool ignore_merges = false;     // a whole word that is a piece is taken as it is
  bool add_prefix_space = false;  // a space is put before text
  bool normalize_nfc = false;
  // SentencePiece:
  bool byte_fallback = true;
  bool remove_extra_whitespace = false;
  std::optional<int32_t> bos, eos, unknown, padding;
  std::vector<int32_t> end_of_generation;  // every id after which generation stops (eos, <|eot_id|>, ...)
  bool add_bos = false, add_eos = false;
  std::string chat_template;  // Jinja text as the model's authors wrote it, "" if there is none

  int64_t size() const { return static_cast<int64_t>(pieces.size()); }
};

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
/// The reverse: sets tokenizer.ggml.* and tokenizer.chat_template.
void write_tokenizer_gguf(const TokenizerData& data, GgufMetadata& metadata);
/// tokenizer.json and tokenizer_config.json texts that transformers reads to the same ids.
struct TokenizerFiles {
  std::string tokenizer_json, tokenizer_config_json;
};
TokenizerFiles to_tokenizer_files(const TokenizerData& data);

}  // namespace pare
