#include "text/special_tokens.h"

#include <algorithm>

#include "base/error.h"

namespace pare {
namespace {

/// A token as these files have it, "<s>" or {"content": "<s>", ...}: its text, "" for none.
std::string token_text(const JsonTree& config, const char* key, std::string_view where) {
  if (is_null_or_missing(config, key)) return "";
  const JsonTree& value = config.at(key);
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object()) return get_text(value, "content", fmt::format("{}: {}", where, key));
  fail("{}: {} is {}, expected a string or an object", where, key, value.type_name());
}

std::optional<int32_t> find_piece(const TokenizerData& data, const std::string& piece) {
  if (piece.empty()) return std::nullopt;
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    if (data.pieces[id] == piece && data.types[id] != TokenType::kUnused) return static_cast<int32_t>(id);
  }
  return std::nullopt;
}

struct Role {
  const char* key;
  std::optional<int32_t> TokenizerData::*id;
};
// The unknown token is the model's own affair: what a configuration calls so may never be used (GPT-2's).
constexpr Role kRoles[] = {
    {"bos_token", &TokenizerData::bos}, {"eos_token", &TokenizerData::eos}, {"pad_token", &TokenizerData::padding}};

/// "chat_template" is a template or a list of named ones.
std::string chat_template_of(const JsonTree& value, std::string_view where) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) fail("{}: chat_template is {}, expected a string or an array", where, value.type_name());
  for (const JsonTree& named : value) {
    if (!named.is_object()) fail("{}: chat_template: expected objects with a name and a template", where);
    if (get_text(named, "name", where) == "default") return get_text(named, "template", where);
  }
  return "";
}

/// An id, or a list of ids.
std::vector<int32_t> ids_of(const JsonTree& config, const char* key, const TokenizerData& data,
                            std::string_view where) {
  std::vector<int32_t> ids;
  if (is_null_or_missing(config, key)) return ids;
  const JsonTree& value = config.at(key);
  const auto add = [&](const JsonTree& id) {
    if (!id.is_number_integer()) fail("{}: {}: expected an id or a list of ids", where, key);
    // Configurations of derived models name ids that their tokenizer does not have; those cannot come up.
    const bool exists = id.is_number_unsigned() && id.get<uint64_t>() < data.pieces.size();
    if (exists) ids.push_back(id.get<int32_t>());
  };
  if (value.is_array()) {
    for (const JsonTree& id : value) add(id);
  } else {
    add(value);
  }
  return ids;
}

}  // namespace

void add_end_of_generation(TokenizerData& data, int32_t id) {
  auto& ends = data.end_of_generation;
  if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
}

void add_tokenizer_config(const JsonTree& config, TokenizerData& data, std::string_view where) {
  // What a post-processor puts around the text is right even where the configuration calls another token so.
  const std::optional<int32_t> before = data.add_bos ? data.bos : std::nullopt;
  const std::optional<int32_t> after = data.add_eos ? data.eos : std::nullopt;
  for (const Role& role : kRoles) {
    if (const auto id = find_piece(data, token_text(config, role.key, where))) data.*role.id = id;
  }
  if (data.eos) add_end_of_generation(data, *data.eos);
  if (before) data.bos = before;
  if (after) data.eos = after;
  if (data.eos) add_end_of_generation(data, *data.eos);
  if (!is_null_or_missing(config, "chat_template")) {
    data.chat_template = chat_template_of(config.at("chat_template"), where);
  }
}

void add_added_bos_eos(const JsonTree& config, TokenizerData& data, std::string_view where) {
  data.add_bos = get_flag(config, "add_bos_token", data.add_bos, where) && data.bos;
  data.add_eos = get_flag(config, "add_eos_token", data.add_eos, where) && data.eos;
}

void add_special_tokens_map(const JsonTree& map, TokenizerData& data, std::string_view where) {
  for (const Role& role : kRoles) {
    if (!(data.*role.id)) data.*role.id = find_piece(data, token_text(map, role.key, where));
  }
  if (data.eos) add_end_of_generation(data, *data.eos);
}

void add_generation_config(const JsonTree& config, TokenizerData& data, std::string_view where) {
  const std::vector<int32_t> bos = ids_of(config, "bos_token_id", data, where);
  const std::vector<int32_t> eos = ids_of(config, "eos_token_id", data, where);
  if (!data.bos && !bos.empty()) data.bos = bos.front();
  if (!data.eos && !eos.empty()) data.eos = eos.front();
  for (const int32_t id : eos) add_end_of_generation(data, id);
}

}  // namespace pare
