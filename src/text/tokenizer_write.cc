#include <algorithm>

#include "base/error.h"
#include "formats/json_walk.h"
#include "formats/names.h"
#include "text/json_parts.h"
#include "text/piece_index.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace pare {
namespace {

/// Which pieces model.vocab holds. The tokenizers library gives an added token that is not in it the id after the
/// largest; where that is another id than the token's, it has to be in it.
std::vector<bool> pieces_in_vocabulary(const TokenizerData& data) {
  std::vector<bool> in_vocabulary(data.pieces.size());
  size_t base = 0;
  std::vector<bool> added(data.pieces.size());
  for (const AddedToken& token : data.added) added[static_cast<size_t>(token.id)] = true;
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    in_vocabulary[id] = data.types[id] != TokenType::kUnused && !added[id];
    base += in_vocabulary[id];
  }
  const bool at_end = std::all_of(in_vocabulary.begin(), in_vocabulary.begin() + static_cast<ptrdiff_t>(base),
                                  [](bool in) { return in; });
  size_t next = base;
  for (const AddedToken& token : data.added) {
    const auto id = static_cast<size_t>(token.id);
    if (at_end && id == next) {
      ++next;
    } else {
      in_vocabulary[id] = true;
    }
  }
  return in_vocabulary;
}

/// Merges that rank as the scores do. What tokenizer.json cannot say is that two merges rank the same: there the order
/// of ids decides, as in transformers' own conversion.
std::vector<Merge> merges_of_scores(const TokenizerData& data) {
  struct Scored {
    Merge merge;
    float score;
  };
  PieceIndex ids(data.pieces.size());
  const auto is_text = [&](size_t id) {
    return data.types[id] == TokenType::kNormal || data.types[id] == TokenType::kUserDefined;
  };
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    if (is_text(id)) ids.add(data.pieces[id], static_cast<int32_t>(id));
  }
  std::vector<Scored> found;
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    const std::string_view piece = data.pieces[id];
    if (!is_text(id) || piece.size() > 1024) continue;
    for (size_t at = 1; at < piece.size(); ++at) {
      const auto left = ids.find(piece.substr(0, at)), right = ids.find(piece.substr(at));
      if (left && right) found.push_back({{*left, *right}, data.scores[id]});
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const Scored& a, const Scored& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.merge.left != b.merge.left ? a.merge.left < b.merge.left : a.merge.right < b.merge.right;
  });
  std::vector<Merge> merges;
  for (const Scored& scored : found) merges.push_back(scored.merge);
  return merges;
}

JsonTree write_post_processor(const TokenizerData& data) {
  if (!data.add_bos && !data.add_eos) {
    if (data.kind == TokenizerKind::kSentencePieceBpe) return nullptr;
    return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  }
  JsonTree single = JsonTree::array(), pair = JsonTree::array(), tokens = JsonTree::object();
  const auto token = [&](std::optional<int32_t> id, int type) {
    const std::string& piece = data.pieces[static_cast<size_t>(id.value_or(0))];
    tokens[piece] = {{"id", piece}, {"ids", {*id}}, {"tokens", {piece}}};
    return JsonTree{{"SpecialToken", {{"id", piece}, {"type_id", type}}}};
  };
  for (int type = 0; type < 2; ++type) {
    JsonTree part = JsonTree::array();
    if (data.add_bos) part.push_back(token(data.bos, type));
    part.push_back({{"Sequence", {{"id", type == 0 ? "A" : "B"}, {"type_id", type}}}});
    if (data.add_eos) part.push_back(token(data.eos, type));
    if (type == 0) single = part;
    pair.insert(pair.end(), part.begin(), part.end());
  }
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

JsonTree write_decoder(const TokenizerData& data) {
  if (data.kind == TokenizerKind::kByteLevelBpe) {
    return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  }
  JsonTree parts = JsonTree::array();
  parts.push_back({{"type", "Replace"}, {"pattern", {{"String", kSpaceSymbol}}}, {"content", " "}});
  parts.push_back({{"type", "ByteFallback"}});
  parts.push_back({{"type", "Fuse"}});
  if (data.strip_decoded_space) parts.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", parts}};
}

JsonTree write_added_tokens(const TokenizerData& data) {
  JsonTree list = JsonTree::array();
  for (const AddedToken& token : data.added) {
    JsonTree part = write_added_token(token);
    part["content"] = data.pieces[static_cast<size_t>(token.id)];
    list.push_back(std::move(part));
  }
  return list;
}

/// The model with its large lists written as text: a document of them would take many times their size.
std::string write_model(const TokenizerData& data) {
  std::string out = "{\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": ";
  out += data.unknown ? json_literal(data.pieces[static_cast<size_t>(*data.unknown)]) : "null";
  out += ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": ";
  out += data.end_of_word_suffix.empty() ? "null" : json_literal(data.end_of_word_suffix);
  const auto flag = [&](const char* key, bool value) {
    out += fmt::format(",\n    \"{}\": {}", key, value ? "true" : "false");
  };
  flag("fuse_unk", data.fuse_unknown);
  flag("byte_fallback", data.byte_fallback);
  flag("ignore_merges", data.ignore_merges);
  out += ",\n    \"vocab\": {";
  const std::vector<bool> in_vocabulary = pieces_in_vocabulary(data);
  const char* separator = "\n      ";
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    if (!in_vocabulary[id]) continue;
    std::string storage;
    if (to_valid_utf8(data.pieces[id], storage).data() != data.pieces[id].data()) {
      fail("the tokenizer's piece {} is not UTF-8, which tokenizer.json cannot hold", id);
    }
    out += fmt::format("{}{}: {}", separator, json_literal(data.pieces[id]), id);
    separator = ",\n      ";
  }
  out += "\n    },\n    \"merges\": [";
  separator = "\n      ";
  const bool scored = data.merges.empty() && !data.scores.empty();
  for (const auto [left, right] : scored ? merges_of_scores(data) : data.merges) {
    out += fmt::format("{}[{}, {}]", separator, json_literal(data.pieces[static_cast<size_t>(left)]),
                       json_literal(data.pieces[static_cast<size_t>(right)]));
    separator = ",\n      ";
  }
  return out + "\n    ]\n  }";
}

std::string write_config(const TokenizerData& data) {
  JsonTree config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  const auto piece = [&](std::optional<int32_t> id) {
    return id ? JsonTree(data.pieces[static_cast<size_t>(*id)]) : JsonTree(nullptr);
  };
  config["bos_token"] = piece(data.bos);
  config["eos_token"] = piece(data.eos);
  config["unk_token"] = piece(data.unknown);
  if (data.padding) config["pad_token"] = piece(data.padding);
  if (!data.chat_template.empty()) config["chat_template"] = data.chat_template;
  return config.dump(2) + "\n";
}

}  // namespace

TokenizerFiles to_tokenizer_files(const TokenizerData& data) {
  std::string json = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null";
  const auto add = [&](const char* key, const JsonTree& value) {
    json += fmt::format(",\n  \"{}\": {}", key, value.dump());
  };
  add("added_tokens", write_added_tokens(data));
  add("normalizer", write_normalizer(data.normalizer));
  add("pre_tokenizer", write_pre_tokenizer(data.pre_tokenizer));
  add("post_processor", write_post_processor(data));
  add("decoder", write_decoder(data));
  json += ",\n  \"model\": " + write_model(data) + "\n}\n";
  return {std::move(json), write_config(data)};
}

}  // namespace pare
