#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "refusal.h"
#include "text/same_tokenizer.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Byte level, with "ab", "abc" and a space joined to "a".
json small() {
  return json::parse(R"({
    "added_tokens": [
      {"id": 8, "content": "<s>", "special": true, "normalized": false},
      {"id": 9, "content": "</s>", "special": true, "normalized": false},
      {"id": 10, "content": "<sep>", "special": false, "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [8], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
      "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "abc": 5, "Ġa": 6, "Ã": 7},
      "merges": ["a b", ["ab", "c"], "Ġ a"]}
  })");
}

TokenizerData parse(const json& tokenizer, const json& config = nullptr) {
  return parse_tokenizer_json(tokenizer.dump(), config.is_null() ? "" : config.dump(), "t.json");
}

std::string error_of(const json& tokenizer, const json& config = nullptr) {
  return test::refusal_of([&] { const Tokenizer made(parse(tokenizer, config)); });
}

TEST(TokenizerJson, EncodesAndDecodes) {
  const Tokenizer tokenizer(parse(small()));
  EXPECT_THAT(tokenizer.encode("abc a<sep>ba"), ElementsAre(8, 5, 6, 10, 1, 0));
  EXPECT_THAT(tokenizer.encode("ab", {.add_special = false}), ElementsAre(4));
  EXPECT_THAT(tokenizer.encode("a</s>b"), ElementsAre(8, 0, 9, 1));
  EXPECT_THAT(tokenizer.encode("a</s>b<sep>", {.parse_special = false}), ElementsAre(8, 0, 1, 10));
  EXPECT_THAT(tokenizer.encode(""), ElementsAre(8));
  const std::vector<int32_t> ids = {8, 5, 6, 10, 9, 7};
  EXPECT_EQ(tokenizer.decode(ids), "abc a<sep>\xc3");
  EXPECT_EQ(tokenizer.decode(ids, true), "<s>abc a<sep></s>\xc3");
  EXPECT_EQ(tokenizer.decode_one(6), " a");
  EXPECT_EQ(tokenizer.decode_one(9), "");
  EXPECT_EQ(tokenizer.decode_one(9, true), "</s>");
  EXPECT_THROW(tokenizer.decode_one(11), Error);
  EXPECT_THROW(tokenizer.decode_one(-1), Error);
}

TEST(TokenizerJson, ConfigurationNamesTheSpecialTokens) {
  const TokenizerData data = parse(small(), {{"bos_token", {{"content", "<s>"}}},
                                             {"eos_token", "</s>"},
                                             {"pad_token", "<sep>"},
                                             {"unk_token", "no such piece"},
                                             {"chat_template", "{{ messages }}"}});
  EXPECT_EQ(data.bos, 8);
  EXPECT_EQ(data.eos, 9);
  EXPECT_EQ(data.padding, 10);
  EXPECT_EQ(data.unknown, std::nullopt);
  EXPECT_EQ(data.chat_template, "{{ messages }}");
  EXPECT_TRUE(data.add_bos);
  EXPECT_FALSE(data.add_eos);
  EXPECT_THAT(data.end_of_generation, ElementsAre(9));
  const Tokenizer tokenizer(data);
  EXPECT_TRUE(tokenizer.ends_generation(9));
  EXPECT_FALSE(tokenizer.ends_generation(8));
  const json named = {{{"name", "tool_use"}, {"template", "T"}}, {{"name", "default"}, {"template", "D"}}};
  EXPECT_EQ(parse(small(), {{"chat_template", named}}).chat_template, "D");
}

TEST(TokenizerJson, TypesAndNamesForGguf) {
  const TokenizerData data = parse(small());
  EXPECT_EQ(data.gguf_pre, "gpt-2");
  EXPECT_EQ(data.types[0], TokenType::kNormal);
  EXPECT_EQ(data.types[8], TokenType::kControl);
  EXPECT_EQ(data.types[10], TokenType::kUserDefined);
}

TEST(TokenizerJson, IdsMayHaveGaps) {
  json tokenizer = small();
  tokenizer["added_tokens"][2]["id"] = 13;
  const TokenizerData data = parse(tokenizer);
  EXPECT_EQ(data.size(), 14);
  EXPECT_EQ(data.types[12], TokenType::kUnused);
  const Tokenizer made(data);
  EXPECT_THAT(made.encode("a<sep>"), ElementsAre(8, 0, 13));
  EXPECT_EQ(made.decode_one(12, true), "");
}

TEST(TokenizerJson, MergesMayComeBeforeTheVocabulary) {
  std::string text = small().dump();
  const std::string merges = R"("merges":["a b",["ab","c"],"Ġ a"],)";
  const size_t at = text.find(merges), model = text.find(R"("model":{)") + 9;
  ASSERT_NE(at, std::string::npos);
  text.erase(at, merges.size());
  text.insert(model, merges);
  const Tokenizer tokenizer(parse_tokenizer_json(text, "", "t.json"));
  EXPECT_THAT(tokenizer.encode("abc a"), ElementsAre(8, 5, 6));
}

struct Broken {
  const char* pointer;  // JSON pointer of what is replaced
  json value;
  const char* message;
};

TEST(TokenizerJson, WhatIsNotSupportedIsRefusedByName) {
  const Broken cases[] = {
      {"/model/type", "Unigram", "of type 'Unigram'"},
      {"/model/type", 3, "type is number, expected a string"},
      {"/model/dropout", 0.1, "model.dropout"},
      {"/model/continuing_subword_prefix", "##", "continuing_subword_prefix"},
      {"/model/vocab", json::array({json::array({"a", 0.5})}), "model.vocab: expected an object of pieces"},
      {"/model/vocab", json::object(), "model.vocab is empty"},
      {"/model/vocab", 5, "model.vocab: expected an object or an array"},
      {"/model/vocab/a", -1, "model.vocab: 'a': expected an id"},
      {"/model/vocab/a", 1, "same id 1"},
      {"/model/vocab/a", 2000000000, "ids reach 2000000000"},
      {"/model/vocab/a", 99999999999, "expected an id"},
      {"/model/vocab/a", "0", "expected an id"},
      {"/model/vocab/a", json::array(), "expected ids"},
      {"/model/merges", {"a b", "a"}, "model.merges[1]: expected two pieces"},
      {"/model/merges", {"a b c"}, "model.merges[0]: expected two pieces"},
      {"/model/merges", {{"a", "b", "c"}}, "model.merges[0]: expected two pieces"},
      {"/model/merges", {{"a"}}, "model.merges[0]: expected two pieces"},
      {"/model/merges", json::parse(R"([["a", 1]])"), "model.merges[0]: expected two pieces"},
      {"/model/merges", json::parse(R"([["a", ["b"]]])"), "model.merges[0]: expected two pieces"},
      {"/model/merges", {"a x"}, "model.merges[0]: 'x' is no piece"},
      {"/model/merges", {"b a"}, "merge 0 makes 'ba', which is no piece"},
      {"/model/merges", "a b", "model.merges: expected an"},
      {"/model/unk_token", "<unk>", "model.unk_token: '<unk>' is no piece"},
      {"/model/byte_fallback", 1, "byte_fallback is number, expected true or false"},
      {"/normalizer", {{"type", "BertNormalizer"}}, "normalizer 'BertNormalizer' is not supported"},
      {"/normalizer", {{"type", "Sequence"}}, "normalizers: expected an array"},
      {"/normalizer", {{"type", "Replace"}, {"content", ""}}, "pattern: expected"},
      {"/normalizer",
       {{"type", "Replace"}, {"pattern", {{"Regex", "("}}}, {"content", ""}},
       "a group that does not end"},
      {"/normalizer", 7, "normalizer is number, expected an object"},
      {"/pre_tokenizer", {{"type", "Whitespace"}}, "pre_tokenizer 'Whitespace' is not supported"},
      {"/pre_tokenizer", nullptr, "neither ByteLevel nor U+2581"},
      {"/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Odd"}}, "behavior 'Odd'"},
      {"/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "_"}}, "expected U+2581"},
      {"/pre_tokenizer",
       {{"type", "Sequence"}, {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "ByteLevel"}}}}},
       "two ByteLevel steps"},
      {"/post_processor", {{"type", "Odd"}}, "post_processor 'Odd' is not supported"},
      {"/post_processor/single", json::array(), "a template without the text"},
      {"/post_processor/single/1", {{"SpecialToken", {{"id", "<s>"}}}}, "more than one token before the text"},
      {"/post_processor/special_tokens/<s>/ids", {8, 9}, "'<s>' is not one token"},
      {"/post_processor/special_tokens/<s>/ids", {77}, "expected an id below 11"},
      {"/decoder", {{"type", "WordPiece"}}, "decoder 'WordPiece' is not supported"},
      {"/decoder", {{"type", "Strip"}, {"content", "x"}, {"start", 1}, {"stop", 0}}, "decoder: Strip"},
      {"/added_tokens", 1, "added_tokens: expected an array"},
      {"/added_tokens/0/id", 0, "same id 0"},
      {"/added_tokens/0/id", "8", "added_tokens[0]: id: expected a number"},
      {"/added_tokens/0/id", 1000000, "ids reach 1000000"},
      {"/added_tokens/0/special", "yes", "special is string, expected true or false"},
      {"/added_tokens/0/content", std::string(5000, 'x'), "has 5000 bytes"},
      {"/model", nullptr, "model is missing"},
  };
  for (const Broken& broken : cases) {
    json tokenizer = small();
    tokenizer[json::json_pointer(broken.pointer)] = broken.value;
    EXPECT_THAT(error_of(tokenizer), HasSubstr(broken.message)) << broken.pointer << " " << broken.value;
  }
}

TEST(TokenizerJson, BrokenConfigurationIsRefused) {
  EXPECT_THAT(error_of(small(), {{"bos_token", 3}}), HasSubstr("bos_token is number"));
  EXPECT_THAT(error_of(small(), {{"eos_token", {{"no", "content"}}}}), HasSubstr("content is missing"));
  EXPECT_THAT(error_of(small(), {{"chat_template", 3}}), HasSubstr("chat_template is number"));
  EXPECT_THAT(error_of(small(), {{"chat_template", {3}}}), HasSubstr("expected objects"));
}

TEST(TokenizerJson, NoJsonIsTooDeepOrTooOdd) {
  const auto error = [](const std::string& text) {
    return test::refusal_of([&] { parse_tokenizer_json(text, "", "t.json"); });
  };
  EXPECT_THAT(error(std::string(3000, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(error("[]"), HasSubstr("expected an object"));
  EXPECT_THAT(error("7"), HasSubstr("expected an object"));
  EXPECT_THAT(error(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(error(R"({"model": {"vocab": {"a": 0, "a": 1}}})"), HasSubstr("stands twice"));
  EXPECT_THAT(error(R"({"model": {"vocab": {"a": 0})"), HasSubstr("not valid JSON"));
  std::string sequences;
  for (int i = 0; i < 20; ++i) sequences += R"({"type":"Sequence","normalizers":[)";
  EXPECT_THAT(error(R"({"normalizer":)" + sequences), HasSubstr("nested deeper"));
  json many = small();
  many["normalizer"] = {{"type", "Sequence"}, {"normalizers", json::array()}};
  for (int i = 0; i < 1000; ++i) many["normalizer"]["normalizers"].push_back({{"type", "NFC"}});
  EXPECT_THAT(error_of(many), HasSubstr("1000 steps"));
  many = small();
  many["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {{{"type", "ByteLevel"}}}}};
  for (int i = 0; i < 1000; ++i) many["pre_tokenizer"]["pretokenizers"].push_back({{"type", "Digits"}});
  EXPECT_THAT(error_of(many), HasSubstr("1001 steps"));
}

TEST(TokenizerJson, NormalizersCannotBlowUpText) {
  json tokenizer = small();
  tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", json::array()}};
  for (int i = 0; i < 40; ++i) {
    const json twice = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
    tokenizer["normalizer"]["normalizers"].push_back(twice);
  }
  EXPECT_THROW(Tokenizer(parse(tokenizer)).encode("aaaaaaaa"), Error);
}

TEST(TokenizerJson, WrittenFilesReadAsTheSameData) {
  const json config = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"chat_template", "x\n\"y\""}};
  const TokenizerData data = parse(small(), config);
  const TokenizerFiles files = to_tokenizer_files(data);
  const TokenizerData again = parse_tokenizer_json(files.tokenizer_json, files.tokenizer_config_json, "t.json");
  test::expect_same_tokenizer(again, data);
}

TEST(TokenizerJson, PaddedVocabulary) {
  TokenizerData data = parse(small());
  pad_vocabulary(data, 16);
  EXPECT_EQ(data.size(), 16);
  const Tokenizer tokenizer(data);
  EXPECT_EQ(tokenizer.decode_one(15), "");
  EXPECT_THROW(tokenizer.decode_one(16), Error);
  pad_vocabulary(data, 3);
  EXPECT_EQ(data.size(), 16);
  EXPECT_THROW(pad_vocabulary(data, int64_t{1} << 40), Error);
}

TEST(Tokenizer, DataThatContradictsItselfIsRefused) {
  const auto error = [](const std::function<void(TokenizerData&)>& change) {
    TokenizerData data = parse(small(), {{"eos_token", "</s>"}});
    change(data);
    return test::refusal_of([&] { const Tokenizer tokenizer(data); });
  };
  EXPECT_EQ(error([](TokenizerData&) {}), "");
  EXPECT_THAT(error([](auto& d) { d.types.pop_back(); }), HasSubstr("11 pieces and 10 types"));
  EXPECT_THAT(error([](auto& d) { d.scores = {1}; }), HasSubstr("11 pieces and 1 scores"));
  EXPECT_THAT(error([](auto& d) { d.eos = 11; }), HasSubstr("eos token has id 11"));
  EXPECT_THAT(error([](auto& d) { d.bos = std::nullopt; }), HasSubstr("adds a bos token and has none"));
  EXPECT_THAT(error([](auto& d) { d.end_of_generation = {-1}; }), HasSubstr("end-of-generation token has id -1"));
  EXPECT_THAT(error([](auto& d) { d.merges.push_back({0, 11}); }), HasSubstr("merge 3"));
  EXPECT_THAT(error([](auto& d) { d.pieces[1] = "a"; }), HasSubstr("has the ids 0 and 1"));
  EXPECT_THAT(error([](auto& d) { std::swap(d.added[0], d.added[1]); }), HasSubstr("not in the order"));
}

}  // namespace
}  // namespace pare
