#include <algorithm>
#include <array>

#include "base/error.h"
#include "formats/names.h"
#include "text/gguf_pre.h"
#include "text/json_parts.h"
#include "text/normalizer.h"
#include "text/piece_index.h"
#include "text/special_tokens.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace pare {
namespace {

constexpr const char* kModel = "tokenizer.ggml.model";
constexpr const char* kPre = "tokenizer.ggml.pre";
constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kMerges = "tokenizer.ggml.merges";
constexpr const char* kAddBos = "tokenizer.ggml.add_bos_token";
constexpr const char* kAddEos = "tokenizer.ggml.add_eos_token";
constexpr const char* kAddSpacePrefix = "tokenizer.ggml.add_space_prefix";
constexpr const char* kRemoveExtraWhitespaces = "tokenizer.ggml.remove_extra_whitespaces";
constexpr const char* kCharsMap = "tokenizer.ggml.precompiled_charsmap";
constexpr const char* kEotId = "tokenizer.ggml.eot_token_id";
constexpr const char* kEomId = "tokenizer.ggml.eom_token_id";
constexpr const char* kChatTemplate = "tokenizer.chat_template";
/// What the keys above cannot say, as a JSON object with the members of TokenizerData that it replaces.
constexpr const char* kExtra = "pare.tokenizer";

struct Role {
  const char* key;
  std::optional<int32_t> TokenizerData::*id;
};
constexpr Role kRoles[] = {{"tokenizer.ggml.bos_token_id", &TokenizerData::bos},
                           {"tokenizer.ggml.eos_token_id", &TokenizerData::eos},
                           {"tokenizer.ggml.unknown_token_id", &TokenizerData::unknown},
                           {"tokenizer.ggml.padding_token_id", &TokenizerData::padding}};

// Files name one eos; these end a turn all the same, and are recognised by what they are called.
constexpr std::array<std::string_view, 12> kEndsOfTurn = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",         "<|end_of_text|>",
    "<|eom_id|>", "<EOT>",      "_<EOT>",  "[EOT]",         "<｜end▁of▁sentence｜>", "<end_of_utterance>"};

bool is_control(TokenType type) { return type == TokenType::kControl || type == TokenType::kUnknown; }

/// The added tokens that GGUF's token types make.
std::vector<AddedToken> added_by_type(const TokenizerData& data) {
  std::vector<AddedToken> added;
  for (size_t id = 0; id < data.types.size(); ++id) {
    if (!is_control(data.types[id]) && data.types[id] != TokenType::kUserDefined) continue;
    added.push_back({.id = static_cast<int32_t>(id), .special = is_control(data.types[id])});
  }
  return added;
}

class Reader {
 public:
  explicit Reader(const GgufMetadata& metadata) : metadata_(metadata) {}

  TokenizerData read(bool with_extra) {
    const std::string& model = metadata_.get_string(kModel);
    if (model != "llama" && model != "gpt2") {
      fail("{}: a tokenizer of model {}, which is not supported (only llama and gpt2 are)", metadata_.file(),
           quote_name(model));
    }
    data_.kind = model == "llama" ? TokenizerKind::kSentencePieceBpe : TokenizerKind::kByteLevelBpe;
    data_.source = metadata_.file();
    read_pieces();
    read_ids();
    read_types();
    read_merges();
    bool add_bos = true;
    if (data_.kind == TokenizerKind::kSentencePieceBpe) {
      read_sentencepiece_options();
    } else {
      add_bos = read_pre();
    }
    data_.add_bos = metadata_.find_bool(kAddBos).value_or(add_bos && data_.bos) && data_.bos;
    data_.add_eos = metadata_.find_bool(kAddEos).value_or(false) && data_.eos;
    data_.added = added_by_type(data_);
    read_ends_of_generation();
    if (const std::string* chat_template = metadata_.find_string(kChatTemplate)) data_.chat_template = *chat_template;
    if (with_extra) read_extra();
    return std::move(data_);
  }

 private:
  void read_pieces() {
    const std::vector<std::string>* tokens = metadata_.find_strings(kTokens);
    if (!tokens || tokens->empty()) fail("{}: key {} is missing or empty", metadata_.file(), kTokens);
    data_.pieces = *tokens;
    if (const auto scores = metadata_.find_numbers(kScores); scores && data_.kind == TokenizerKind::kSentencePieceBpe) {
      check_size(kScores, scores->size());
      data_.scores.assign(scores->begin(), scores->end());
    }
  }

  void check_size(const char* key, size_t size) const {
    if (size != data_.pieces.size()) {
      fail("{}: {} has {} entries, {} has {}", metadata_.file(), key, size, kTokens, data_.pieces.size());
    }
  }

  std::optional<int32_t> find_id(const char* key) const {
    const auto id = metadata_.find_int(key);
    if (!id) return std::nullopt;
    if (*id < 0 || *id >= data_.size()) {
      fail("{}: {} is {}, expected an id below {}", metadata_.file(), key, *id, data_.size());
    }
    return static_cast<int32_t>(*id);
  }

  void read_ids() {
    for (const Role& role : kRoles) data_.*role.id = find_id(role.key);
  }

  void read_types() {
    data_.types.assign(data_.pieces.size(), TokenType::kNormal);
    if (const auto types = metadata_.find_ints(kTypes)) {
      check_size(kTypes, types->size());
      for (size_t id = 0; id < types->size(); ++id) {
        const int64_t type = (*types)[id];
        if (type < 0 || type > 6) fail("{}: {}[{}] is {}, expected 0 to 6", metadata_.file(), kTypes, id, type);
        data_.types[id] = type == 0 ? TokenType::kNormal : static_cast<TokenType>(type);
      }
    } else {
      guess_types();
    }
    for (size_t id = 0; id < data_.pieces.size(); ++id) {
      if (data_.pieces[id].empty()) data_.types[id] = TokenType::kUnused;
      if (data_.pieces[id].empty()) data_.pieces[id] = fmt::format("[PAD{}]", id);
    }
  }

  void guess_types() {
    for (size_t id = 0; id < data_.pieces.size(); ++id) {
      const bool byte = data_.kind == TokenizerKind::kSentencePieceBpe && byte_of_fallback_piece(data_.pieces[id]);
      if (byte) data_.types[id] = TokenType::kByte;
    }
    for (const Role& role : kRoles) {
      if (data_.*role.id) data_.types[static_cast<size_t>(*(data_.*role.id))] = TokenType::kControl;
    }
  }

  void read_merges() {
    const std::vector<std::string>* merges = metadata_.find_strings(kMerges);
    if (!merges) {
      if (data_.kind == TokenizerKind::kByteLevelBpe) fail("{}: key {} is missing", metadata_.file(), kMerges);
      if (data_.scores.empty()) fail("{}: key {} is missing", metadata_.file(), kScores);
      return;
    }
    const PieceIndex ids = index_pieces(data_);
    const auto id_of = [&](std::string_view piece, size_t index) {
      if (const auto id = ids.find(piece)) return *id;
      fail("{}: {}[{}]: {} is no token", metadata_.file(), kMerges, index, quote_name(piece));
    };
    data_.merges.reserve(merges->size());
    for (size_t i = 0; i < merges->size(); ++i) {
      const std::string_view merge = (*merges)[i];
      const size_t space = merge.find(' ', 1);
      if (space == std::string_view::npos) {
        fail("{}: {}[{}] is {}, expected two tokens", metadata_.file(), kMerges, i, quote_name(merge));
      }
      data_.merges.push_back({id_of(merge.substr(0, space), i), id_of(merge.substr(space + 1), i)});
    }
  }

  void read_sentencepiece_options() {
    const bool prefix = metadata_.find_bool(kAddSpacePrefix).value_or(true);
    const bool remove = metadata_.find_bool(kRemoveExtraWhitespaces).value_or(false);
    std::string charsmap;
    if (const auto bytes = metadata_.find_ints(kCharsMap)) {
      for (const int64_t byte : *bytes) charsmap.push_back(static_cast<char>(byte));
    }
    data_.normalizer = sentencepiece_normalizer(std::move(charsmap), remove, prefix);
    data_.strip_decoded_space = prefix;
    data_.fuse_unknown = true;
    data_.byte_fallback = std::count(data_.types.begin(), data_.types.end(), TokenType::kByte) == 256;
  }

  bool read_pre() {
    const std::string* name = metadata_.find_string(kPre);
    GgufPre pre = gguf_pre(name ? *name : "default", metadata_.file());
    data_.pre_tokenizer = std::move(pre.steps);
    data_.ignore_merges = pre.ignore_merges;
    data_.gguf_pre = name ? *name : "default";
    return pre.add_bos;
  }

  void read_ends_of_generation() {
    if (data_.eos) add_end_of_generation(data_, *data_.eos);
    for (const char* key : {kEotId, kEomId}) {
      if (const auto id = find_id(key)) add_end_of_generation(data_, *id);
    }
    for (size_t id = 0; id < data_.pieces.size(); ++id) {
      const bool named = std::find(kEndsOfTurn.begin(), kEndsOfTurn.end(), data_.pieces[id]) != kEndsOfTurn.end();
      if (named && data_.types[id] != TokenType::kUnused) add_end_of_generation(data_, static_cast<int32_t>(id));
    }
  }

  void read_extra() {
    const std::string* text = metadata_.find_string(kExtra);
    if (!text) return;
    const std::string where = fmt::format("{}: key {}", metadata_.file(), kExtra);
    const JsonTree extra = read_json_tree(*text, where);
    if (extra.contains("normalizer")) {
      const bool map = !data_.normalizer.empty() && data_.normalizer[0].kind == NormalizerStep::Kind::kCharsMap;
      if (map) fail("{}: a normalizer beside {}", where, kCharsMap);
      data_.normalizer = parse_normalizer(extra["normalizer"], where);
    }
    if (extra.contains("pre_tokenizer")) {
      data_.pre_tokenizer = parse_pre_tokenizer(extra["pre_tokenizer"], where);
      data_.gguf_pre = "";
    }
    if (extra.contains("end_of_word_suffix")) {
      data_.end_of_word_suffix = get_text(extra, "end_of_word_suffix", where);
    }
    data_.ignore_merges = get_flag(extra, "ignore_merges", data_.ignore_merges, where);
    data_.byte_fallback = get_flag(extra, "byte_fallback", data_.byte_fallback, where);
    data_.fuse_unknown = get_flag(extra, "fuse_unknown", data_.fuse_unknown, where);
    data_.strip_decoded_space = get_flag(extra, "strip_decoded_space", data_.strip_decoded_space, where);
    if (extra.contains("end_of_generation")) {
      data_.end_of_generation.clear();
      add_generation_config({{"eos_token_id", extra["end_of_generation"]}}, data_, where);
    }
    if (extra.contains("added_tokens")) read_added(extra["added_tokens"], where);
  }

  void read_added(const JsonTree& list, const std::string& where) {
    if (!list.is_array()) fail("{}: added_tokens: expected an array", where);
    data_.added.clear();
    for (const JsonTree& part : list) data_.added.push_back(parse_added_token(part, where + ": added_tokens"));
  }

  const GgufMetadata& metadata_;
  TokenizerData data_;
};

/// Whether a space is put before text, as llama.cpp's add_space_prefix means it.
bool adds_space_prefix(const TokenizerData& data) {
  const auto prepends = [](const NormalizerStep& step) { return step.kind == NormalizerStep::Kind::kPrepend; };
  const auto prefixes = [](const PreTokenizerStep& step) { return step.prefix != PrefixSpace::kNever; };
  return std::any_of(data.normalizer.begin(), data.normalizer.end(), prepends) ||
         std::any_of(data.pre_tokenizer.begin(), data.pre_tokenizer.end(), prefixes);
}

/// Scores that rank pieces as their first merges do, for programs that know no merges.
std::vector<float> scores_of_merges(const TokenizerData& data) {
  const PieceIndex ids = index_pieces(data);
  std::vector<float> scores(data.pieces.size(), -static_cast<float>(data.merges.size()));
  for (size_t rank = data.merges.size(); rank-- > 0;) {
    const auto [left, right] = data.merges[rank];
    const auto result = ids.find(data.pieces[static_cast<size_t>(left)] + data.pieces[static_cast<size_t>(right)]);
    if (result) scores[static_cast<size_t>(*result)] = -static_cast<float>(rank);
  }
  return scores;
}

void write_merges(const TokenizerData& data, GgufMetadata& metadata) {
  std::vector<std::string> merges;
  merges.reserve(data.merges.size());
  for (const auto [left, right] : data.merges) {
    const std::string& first = data.pieces[static_cast<size_t>(left)];
    const std::string& second = data.pieces[static_cast<size_t>(right)];
    // Readers cut at the first space after the first byte.
    if (first.find(' ', 1) != std::string::npos) {
      fail("the tokenizer's piece {} has a space in it, which GGUF's merges cannot hold", quote_name(first));
    }
    merges.push_back(first + ' ' + second);
  }
  metadata.set(kMerges, std::move(merges));
}

void write_sentencepiece_options(const TokenizerData& data, GgufMetadata& metadata) {
  if (data.scores.empty() && data.merges.empty()) {
    fail("the tokenizer merges nothing, which GGUF cannot say of a SentencePiece model: there scores always merge");
  }
  metadata.set(kAddSpacePrefix, adds_space_prefix(data));
  metadata.set(kScores, data.scores.empty() ? scores_of_merges(data) : data.scores);
  const auto is_map = [](const NormalizerStep& step) { return step.kind == NormalizerStep::Kind::kCharsMap; };
  const auto map = std::find_if(data.normalizer.begin(), data.normalizer.end(), is_map);
  std::string charsmap;
  if (map != data.normalizer.end()) {
    charsmap = map->content;
    metadata.set(kCharsMap, std::vector<uint8_t>(charsmap.begin(), charsmap.end()));
  }
  const bool remove = data.normalizer == sentencepiece_normalizer(charsmap, true, adds_space_prefix(data));
  if (remove) metadata.set(kRemoveExtraWhitespaces, true);
}

/// What `plain`, read from the standard keys, has otherwise than data.
JsonTree extra_of(const TokenizerData& data, const TokenizerData& plain) {
  JsonTree extra = JsonTree::object();
  if (data.normalizer != plain.normalizer) extra["normalizer"] = write_normalizer(data.normalizer);
  if (data.gguf_pre.empty() && data.pre_tokenizer != plain.pre_tokenizer) {
    extra["pre_tokenizer"] = write_pre_tokenizer(data.pre_tokenizer);
  }
  if (data.end_of_word_suffix != plain.end_of_word_suffix) extra["end_of_word_suffix"] = data.end_of_word_suffix;
  if (data.ignore_merges != plain.ignore_merges) extra["ignore_merges"] = data.ignore_merges;
  if (data.byte_fallback != plain.byte_fallback) extra["byte_fallback"] = data.byte_fallback;
  if (data.fuse_unknown != plain.fuse_unknown) extra["fuse_unknown"] = data.fuse_unknown;
  if (data.strip_decoded_space != plain.strip_decoded_space) extra["strip_decoded_space"] = data.strip_decoded_space;
  const bool ends = !data.end_of_generation.empty() && data.end_of_generation != plain.end_of_generation;
  if (ends) extra["end_of_generation"] = data.end_of_generation;
  if (data.added != plain.added) {
    JsonTree& list = extra["added_tokens"] = JsonTree::array();
    for (const AddedToken& token : data.added) list.push_back(write_added_token(token));
  }
  return extra;
}

}  // namespace

TokenizerData read_tokenizer_gguf(const GgufMetadata& metadata) { return Reader(metadata).read(true); }

void write_tokenizer_gguf(const TokenizerData& data, GgufMetadata& metadata) {
  GgufMetadata own("tokenizer");
  const bool byte_level = data.kind == TokenizerKind::kByteLevelBpe;
  own.set(kModel, std::string(byte_level ? "gpt2" : "llama"));
  const std::string pre = data.gguf_pre.empty() ? find_gguf_pre(data) : data.gguf_pre;
  if (byte_level) own.set(kPre, pre.empty() ? std::string("default") : pre);
  own.set(kTokens, data.pieces);
  std::vector<int32_t> types;
  for (const TokenType type : data.types) types.push_back(static_cast<int32_t>(type));
  own.set(kTypes, std::move(types));
  if (!byte_level) write_sentencepiece_options(data, own);
  if (byte_level || !data.merges.empty()) write_merges(data, own);
  for (const Role& role : kRoles) {
    if (data.*role.id) own.set(role.key, static_cast<uint32_t>(*(data.*role.id)));
  }
  const auto other_end = std::find_if(data.end_of_generation.begin(), data.end_of_generation.end(),
                                      [&](int32_t id) { return data.eos != id; });
  if (other_end != data.end_of_generation.end()) own.set(kEotId, static_cast<uint32_t>(*other_end));
  own.set(kAddBos, data.add_bos);
  own.set(kAddEos, data.add_eos);
  if (!data.chat_template.empty()) own.set(kChatTemplate, data.chat_template);
  TokenizerData named = data;
  named.gguf_pre = pre;
  const JsonTree extra = extra_of(named, Reader(own).read(false));
  if (!extra.empty()) own.set(kExtra, extra.dump());
  for (const auto& [key, value] : own.entries()) metadata.set(key, value);
}

}  // namespace pare
