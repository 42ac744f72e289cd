#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace pare {

/// A JSON document with sorted objects: those of tokenizer files can have 100,000 keys, which ordered ones look
/// through.
using JsonTree = nlohmann::json;

/// A tokenizer.json with what is large kept apart: model.vocab and model.merges, all else as a document.
struct TokenizerJson {
  JsonTree rest;
  std::vector<std::pair<std::string, int32_t>> vocabulary;
  std::vector<Merge> merges;
  bool vocabulary_is_list = false;  // as unigram models have it; not read
};
/// Throws Error naming `where` and the place in it.
TokenizerJson read_tokenizer_json(std::string_view text, std::string_view where);
/// Any other JSON file of a tokenizer; "" reads as an empty object.
JsonTree read_json_tree(std::string_view text, std::string_view where);

/// Members of objects; Error if one is of another type than expected.
bool get_flag(const JsonTree& object, const char* key, bool fallback, std::string_view where);
std::string get_text(const JsonTree& object, const char* key, std::string_view where);
std::string type_of_part(const JsonTree& part, const char* kind, std::string_view where);
bool is_null_or_missing(const JsonTree& object, const char* key);

/// tokenizer.json's "normalizer" and "pre_tokenizer" (null for none).
std::vector<NormalizerStep> parse_normalizer(const JsonTree& part, std::string_view where);
std::vector<PreTokenizerStep> parse_pre_tokenizer(const JsonTree& part, std::string_view where);
JsonTree write_normalizer(const std::vector<NormalizerStep>& steps);
JsonTree write_pre_tokenizer(const std::vector<PreTokenizerStep>& steps);

AddedToken parse_added_token(const JsonTree& part, std::string_view where);
/// Without its "content".
JsonTree write_added_token(const AddedToken& token);

}  // namespace pare
