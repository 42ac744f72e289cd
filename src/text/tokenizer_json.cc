#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "formats/names.h"
#include "text/gguf_pre.h"
#include "text/json_parts.h"
#include "text/piece_index.h"
#include "text/special_tokens.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace pare {
namespace {

/// Puts a tokenizer.json together. Each step reads one of its members.
class Assembly {
 public:
  Assembly(TokenizerJson json, std::string_view where) : json_(std::move(json)), where_(where) {}

  TokenizerData assemble(const JsonTree& config) {
    check_model();
    data_.source = where_;
    data_.normalizer = parse_normalizer(member("normalizer"), where_);
    data_.pre_tokenizer = parse_pre_tokenizer(member("pre_tokenizer"), where_);
    choose_kind();
    add_pieces();
    add_added_tokens();
    data_.merges = std::move(json_.merges);
    add_model_options();
    check_decoder(member("decoder"));
    add_post_processor(member("post_processor"));
    data_.gguf_pre = find_gguf_pre(data_);
    add_tokenizer_config(config, data_, where_);
    return std::move(data_);
  }

 private:
  const JsonTree& member(const char* key) const {
    static const JsonTree null;
    const auto found = json_.rest.find(key);
    return found == json_.rest.end() ? null : *found;
  }
  const JsonTree& model() const { return member("model"); }

  void check_model() {
    if (!model().is_object()) fail("{}: model is missing", where_);
    std::string type = json_.vocabulary_is_list ? "Unigram" : "BPE";
    if (!is_null_or_missing(model(), "type")) {
      type = get_text(model(), "type", where_);
    } else if (!json_.vocabulary_is_list && json_.merges.empty()) {
      fail("{}: model.type is missing and there are no merges", where_);
    }
    if (type != "BPE") {
      fail("{}: a tokenizer of type {}, which is not supported (only BPE is)", where_, quote_name(type));
    }
    if (json_.vocabulary_is_list) fail("{}: model.vocab: expected an object of pieces and ids", where_);
    if (json_.vocabulary.empty()) fail("{}: model.vocab is empty", where_);
    const auto dropout = model().find("dropout");
    if (dropout != model().end() && !dropout->is_null() && *dropout != 0) {
      fail("{}: model.dropout is not supported", where_);
    }
    if (!is_null_or_missing(model(), "continuing_subword_prefix") &&
        !get_text(model(), "continuing_subword_prefix", where_).empty()) {
      fail("{}: model.continuing_subword_prefix is not supported", where_);
    }
  }

  void choose_kind() {
    const auto byte_level = [](const PreTokenizerStep& step) {
      return step.kind == PreTokenizerStep::Kind::kByteLevel;
    };
    const auto metaspace = [](const PreTokenizerStep& step) { return step.kind == PreTokenizerStep::Kind::kMetaspace; };
    const auto writes_spaces = [](const NormalizerStep& step) {
      return step.kind == NormalizerStep::Kind::kReplace && step.content == kSpaceSymbol;
    };
    const auto& steps = data_.pre_tokenizer;
    if (std::any_of(steps.begin(), steps.end(), byte_level)) {
      data_.kind = TokenizerKind::kByteLevelBpe;
    } else if (std::any_of(steps.begin(), steps.end(), metaspace) ||
               std::any_of(data_.normalizer.begin(), data_.normalizer.end(), writes_spaces)) {
      data_.kind = TokenizerKind::kSentencePieceBpe;
    } else {
      fail("{}: a BPE tokenizer that has neither ByteLevel nor U+2581 for spaces is not supported", where_);
    }
  }

  /// Pieces go to their ids; what is left over between them is unused.
  void add_pieces() {
    const JsonTree& added = member("added_tokens");
    if (!added.is_null() && !added.is_array()) fail("{}: added_tokens: expected an array", where_);
    int32_t last = 0;
    for (const auto& [piece, id] : json_.vocabulary) last = std::max(last, id);
    const auto most = static_cast<int64_t>(2 * (json_.vocabulary.size() + added.size()) + 65536);
    for (const JsonTree& token : added) {
      added_.push_back({parse_added_token(token, added_place()), get_text(token, "content", added_place())});
      last = std::max(last, added_.back().token.id);
    }
    if (last >= most) {
      fail("{}: ids reach {} with {} tokens", where_, last, json_.vocabulary.size() + added.size());
    }
    data_.pieces.resize(static_cast<size_t>(last) + 1);
    data_.types.assign(data_.pieces.size(), TokenType::kUnused);
    for (auto& [piece, id] : json_.vocabulary) put_piece(std::move(piece), id);
    ids_.emplace(index_pieces(data_));
  }

  std::string added_place() const { return fmt::format("{}: added_tokens[{}]", where_, added_.size()); }

  void put_piece(std::string piece, int32_t id) {
    const auto at = static_cast<size_t>(id);
    if (data_.types[at] != TokenType::kUnused) {
      fail("{}: {} and {} have the same id {}", where_, quote_name(data_.pieces[at]), quote_name(piece), id);
    }
    data_.pieces[at] = std::move(piece);
    data_.types[at] = TokenType::kNormal;
  }

  /// A token that the vocabulary has as well keeps the id it has there.
  void add_added_tokens() {
    for (auto& [token, content] : added_) {
      if (content.empty()) continue;
      if (const auto id = ids_->find(content)) {
        token.id = *id;
      } else {
        put_piece(std::move(content), token.id);
      }
      const auto at = static_cast<size_t>(token.id);
      ids_->add(data_.pieces[at], token.id);
      data_.types[at] = token.special ? TokenType::kControl : TokenType::kUserDefined;
      data_.added.push_back(token);
    }
    const auto by_id = [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; };
    const auto same_id = [](const AddedToken& a, const AddedToken& b) { return a.id == b.id; };
    std::stable_sort(data_.added.begin(), data_.added.end(), by_id);
    data_.added.erase(std::unique(data_.added.begin(), data_.added.end(), same_id), data_.added.end());
    for (size_t id = 0; id < data_.pieces.size(); ++id) {
      if (data_.types[id] == TokenType::kUnused) data_.pieces[id] = fmt::format("[PAD{}]", id);
    }
  }

  void add_model_options() {
    data_.ignore_merges = get_flag(model(), "ignore_merges", false, where_);
    data_.fuse_unknown = get_flag(model(), "fuse_unk", false, where_);
    data_.byte_fallback = get_flag(model(), "byte_fallback", false, where_);
    if (!is_null_or_missing(model(), "end_of_word_suffix")) {
      data_.end_of_word_suffix = get_text(model(), "end_of_word_suffix", where_);
    }
    if (!is_null_or_missing(model(), "unk_token")) {
      const std::string piece = get_text(model(), "unk_token", where_);
      data_.unknown = ids_->find(piece);
      if (!data_.unknown) fail("{}: model.unk_token: {} is no piece", where_, quote_name(piece));
      data_.types[static_cast<size_t>(*data_.unknown)] = TokenType::kUnknown;
    }
    if (!data_.byte_fallback) return;
    for (size_t id = 0; id < data_.pieces.size(); ++id) {
      const bool normal = data_.types[id] == TokenType::kNormal;
      if (normal && byte_of_fallback_piece(data_.pieces[id])) data_.types[id] = TokenType::kByte;
    }
  }

  /// Decoding follows from the kind of tokenizer; what a decoder may add to that is the stripping of the first space.
  void check_decoder(const JsonTree& part) {
    if (part.is_null()) return;
    const std::string type = type_of_part(part, "decoder", where_);
    if (type == "Sequence") {
      const auto parts = part.find("decoders");
      if (parts == part.end() || !parts->is_array()) fail("{}: decoder: decoders: expected an array", where_);
      for (const JsonTree& inner : *parts) check_decoder(inner);
    } else if (type == "Strip") {
      const auto number = [&](const char* key) {
        const auto found = part.find(key);
        return found != part.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
      };
      if (get_text(part, "content", where_) != " " || number("start") > 1 || number("stop") > 0) {
        fail("{}: decoder: Strip of anything but one space at the start is not supported", where_);
      }
      data_.strip_decoded_space = number("start") == 1;
    } else if (type == "Metaspace") {
      const bool never =
          !is_null_or_missing(part, "prepend_scheme") && get_text(part, "prepend_scheme", where_) == "never";
      data_.strip_decoded_space = !never && get_flag(part, "add_prefix_space", true, where_);
    } else if (type == "Replace") {
      if (get_text(part, "content", where_) != " ") fail("{}: decoder: Replace by anything but a space", where_);
    } else if (type != "ByteLevel" && type != "ByteFallback" && type != "Fuse") {
      fail("{}: decoder {} is not supported", where_, quote_name(type));
    }
  }

  void add_post_processor(const JsonTree& part) {
    if (part.is_null()) return;
    const std::string type = type_of_part(part, "post_processor", where_);
    if (type == "Sequence") {
      const auto parts = part.find("processors");
      if (parts == part.end() || !parts->is_array()) fail("{}: post_processor: processors: expected an array", where_);
      for (const JsonTree& inner : *parts) add_post_processor(inner);
    } else if (type == "TemplateProcessing") {
      add_template(part);
    } else if (type == "RobertaProcessing" || type == "BertProcessing") {
      set_bos(id_of_pair(part, "cls"));
      set_eos(id_of_pair(part, "sep"));
    } else if (type != "ByteLevel") {
      fail("{}: post_processor {} is not supported", where_, quote_name(type));
    }
  }

  /// ["<s>", 0]
  int32_t id_of_pair(const JsonTree& part, const char* key) const {
    const auto pair = part.find(key);
    if (pair == part.end() || !pair->is_array() || pair->size() != 2) {
      fail("{}: post_processor: {}: expected a token and its id", where_, key);
    }
    return checked_id((*pair)[1], key);
  }

  int32_t checked_id(const JsonTree& id, const char* what) const {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= data_.pieces.size()) {
      fail("{}: post_processor: {}: expected an id below {}", where_, what, data_.pieces.size());
    }
    return id.get<int32_t>();
  }

  void add_template(const JsonTree& part) {
    const auto single = part.find("single");
    if (single == part.end() || !single->is_array()) fail("{}: post_processor: single: expected an array", where_);
    bool after_text = false;
    for (const JsonTree& piece : *single) {
      if (piece.is_object() && piece.contains("Sequence")) {
        if (after_text) fail("{}: post_processor: the text stands twice in a template", where_);
        after_text = true;
      } else if (piece.is_object() && piece.contains("SpecialToken") && piece["SpecialToken"].is_object()) {
        const int32_t id = id_in_template(part, get_text(piece["SpecialToken"], "id", where_));
        after_text ? set_eos(id) : set_bos(id);
      } else {
        fail("{}: post_processor: a template with an unknown part", where_);
      }
    }
    if (!after_text) fail("{}: post_processor: a template without the text", where_);
  }

  int32_t id_in_template(const JsonTree& part, const std::string& name) const {
    const auto tokens = part.find("special_tokens");
    const bool listed = tokens != part.end() && tokens->is_object() && tokens->contains(name);
    const JsonTree& token = listed ? tokens->at(name) : part;
    if (!listed || !token.is_object() || !token.contains("ids") || !token["ids"].is_array() ||
        token["ids"].size() != 1) {
      fail("{}: post_processor: {} is not one token", where_, quote_name(name));
    }
    return checked_id(token["ids"][0], "special_tokens");
  }

  void set_bos(int32_t id) {
    if (data_.add_bos) fail("{}: post_processor: more than one token before the text is not supported", where_);
    data_.add_bos = true;
    data_.bos = id;
  }
  void set_eos(int32_t id) {
    if (data_.add_eos) fail("{}: post_processor: more than one token after the text is not supported", where_);
    data_.add_eos = true;
    data_.eos = id;
  }

  struct Added {
    AddedToken token;
    std::string content;
  };
  TokenizerJson json_;
  std::string_view where_;
  TokenizerData data_;
  std::vector<Added> added_;
  std::optional<PieceIndex> ids_;  // views of data_.pieces, which do not move any more
};

}  // namespace

TokenizerData parse_tokenizer_json(std::string_view json, std::string_view config_json, std::string_view where) {
  const JsonTree config = read_json_tree(config_json, fmt::format("tokenizer_config.json beside {}", where));
  return Assembly(read_tokenizer_json(json, where), where).assemble(config);
}

}  // namespace pare
