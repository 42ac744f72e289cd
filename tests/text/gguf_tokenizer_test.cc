#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "formats/gguf.h"
#include "refusal.h"
#include "text/gguf_pre.h"
#include "text/pre_tokenizer.h"
#include "text/same_tokenizer.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Strings = std::vector<std::string>;
using Ints = std::vector<int32_t>;

std::filesystem::path shared() {
  const char* given = std::getenv("PARE_SHARED");
  return given ? std::filesystem::path(given) : std::filesystem::path(PARE_SOURCE_DIR) / ".." / "shared";
}

GgufMetadata byte_level() {
  GgufMetadata metadata("m.gguf");
  metadata.set("tokenizer.ggml.model", std::string("gpt2"));
  metadata.set("tokenizer.ggml.pre", std::string("gpt-2"));
  metadata.set("tokenizer.ggml.tokens", Strings{"a", "b", "ab", "Ġ", "Ġa", "<s>", "<|im_end|>", "", "  "});
  metadata.set("tokenizer.ggml.token_type", Ints{1, 1, 1, 1, 1, 3, 3, 5, 4});
  metadata.set("tokenizer.ggml.merges", Strings{"a b", "Ġ a"});
  metadata.set("tokenizer.ggml.bos_token_id", uint32_t{5});
  return metadata;
}

GgufMetadata scored() {
  GgufMetadata metadata("m.gguf");
  metadata.set("tokenizer.ggml.model", std::string("llama"));
  metadata.set("tokenizer.ggml.tokens", Strings{"<unk>", "<s>", "</s>", "\u2581", "a", "b", "\u2581a", "ab"});
  metadata.set("tokenizer.ggml.scores", std::vector<float>{0, 0, 0, -9, -9, -9, -1, -2});
  metadata.set("tokenizer.ggml.token_type", Ints{2, 3, 3, 1, 1, 1, 1, 1});
  metadata.set("tokenizer.ggml.bos_token_id", uint32_t{1});
  metadata.set("tokenizer.ggml.eos_token_id", uint32_t{2});
  metadata.set("tokenizer.ggml.unknown_token_id", uint32_t{0});
  return metadata;
}

std::string error_of(const GgufMetadata& metadata) {
  return test::refusal_of([&] { const Tokenizer tokenizer(read_tokenizer_gguf(metadata)); });
}

TEST(GgufTokenizer, ByteLevel) {
  const Tokenizer tokenizer(read_tokenizer_gguf(byte_level()));
  EXPECT_THAT(tokenizer.encode("ab a<|im_end|>  b"), ElementsAre(2, 4, 6, 8, 1));
  EXPECT_TRUE(tokenizer.ends_generation(6));
  EXPECT_EQ(tokenizer.data().bos, 5);
  EXPECT_FALSE(tokenizer.data().add_bos);
  EXPECT_EQ(tokenizer.decode(Ints{2, 4, 8, 6, 7}), "ab a  ");
}

TEST(GgufTokenizer, SentencePiece) {
  GgufMetadata metadata = scored();
  const Tokenizer tokenizer(read_tokenizer_gguf(metadata));
  EXPECT_THAT(tokenizer.encode("ab ab</s>"), ElementsAre(1, 6, 5, 6, 5, 2));
  EXPECT_EQ(tokenizer.decode(Ints{1, 6, 5}), "ab");
  metadata.set("tokenizer.ggml.add_space_prefix", false);
  metadata.set("tokenizer.ggml.add_bos_token", false);
  metadata.set("tokenizer.ggml.add_eos_token", true);
  const Tokenizer other(read_tokenizer_gguf(metadata));
  EXPECT_THAT(other.encode("ab ab"), ElementsAre(7, 6, 5, 2));
  EXPECT_EQ(other.decode(Ints{6, 5}), " ab");
}

TEST(GgufTokenizer, TypesAreGuessedWhereTheyAreMissing) {
  GgufMetadata metadata = scored();
  metadata.erase("tokenizer.ggml.token_type");
  EXPECT_THAT(Tokenizer(read_tokenizer_gguf(metadata)).encode("</s>a"), ElementsAre(1, 2, 6));
}

TEST(GgufTokenizer, NamesOfPreTokenizers) {
  GgufMetadata metadata = byte_level();
  metadata.set("tokenizer.ggml.pre", std::string("llama-bpe"));
  EXPECT_TRUE(read_tokenizer_gguf(metadata).add_bos);
  EXPECT_TRUE(read_tokenizer_gguf(metadata).ignore_merges);
  metadata.set("tokenizer.ggml.pre", std::string("nonsense"));
  EXPECT_THAT(error_of(metadata), HasSubstr("the pre-tokenizer 'nonsense' (tokenizer.ggml.pre) is not known"));
  for (const char* name :
       {"llama3",      "gpt-2",      "default",    "qwen2",      "smollm", "deepseek-llm", "deepseek-coder", "tekken",
        "deepseek-v3", "falcon",     "starcoder",  "olmo",       "gpt-4o", "bloom",        "superbpe",       "viking",
        "tiny_aya",    "exaone-moe", "seed-coder", "bailingmoe", "qwen35", "dbrx"}) {
    const GgufPre pre = gguf_pre(name, "test");
    EXPECT_NO_THROW(PreTokenizer(pre.steps)) << name;
    TokenizerData data;
    data.pre_tokenizer = pre.steps;
    data.ignore_merges = pre.ignore_merges;
    EXPECT_EQ(gguf_pre(find_gguf_pre(data), "test").steps, pre.steps) << name;
  }
}

TEST(GgufTokenizer, WithoutANameItIsTheDefault) {
  GgufMetadata metadata = byte_level();
  metadata.erase("tokenizer.ggml.pre");
  EXPECT_EQ(read_tokenizer_gguf(metadata).gguf_pre, "default");
  EXPECT_EQ(read_tokenizer_gguf(metadata).pre_tokenizer, gguf_pre("default", "").steps);
}

TEST(GgufTokenizer, WhatIsReadIsWritten) {
  for (const GgufMetadata& metadata : {byte_level(), scored()}) {
    const TokenizerData data = read_tokenizer_gguf(metadata);
    GgufMetadata written("w.gguf");
    written.set("general.architecture", std::string("llama"));
    write_tokenizer_gguf(data, written);
    EXPECT_EQ(written.find("pare.tokenizer"), nullptr);
    EXPECT_NE(written.find("general.architecture"), nullptr);
    const TokenizerData again = read_tokenizer_gguf(written);
    test::expect_same_tokenizer(again, data);
  }
}

TEST(GgufTokenizer, WhatGgufCannotSayGoesBeside) {
  TokenizerData data = read_tokenizer_gguf(byte_level());
  data.gguf_pre = "";
  data.pre_tokenizer.insert(data.pre_tokenizer.begin(), PreTokenizerStep{.pattern = "b"});
  data.normalizer = {{NormalizerStep::Kind::kNfc, "", ""}};
  data.added[0].lstrip = true;
  data.fuse_unknown = true;
  data.end_of_generation = {2, 6};
  GgufMetadata written("w.gguf");
  write_tokenizer_gguf(data, written);
  EXPECT_EQ(written.get_string("tokenizer.ggml.pre"), "default");
  const TokenizerData again = read_tokenizer_gguf(written);
  EXPECT_EQ(again.pre_tokenizer, data.pre_tokenizer);
  EXPECT_EQ(again.normalizer, data.normalizer);
  EXPECT_EQ(again.added, data.added);
  EXPECT_EQ(again.end_of_generation, data.end_of_generation);
  EXPECT_TRUE(again.fuse_unknown);
  written.set("pare.tokenizer", std::string("{\"normalizer\": 3}"));
  EXPECT_THAT(error_of(written), HasSubstr("w.gguf: key pare.tokenizer: normalizer is number"));
  written.set("pare.tokenizer", std::string("{\"added_tokens\": [{\"id\": 99}]}"));
  EXPECT_THAT(error_of(written), HasSubstr("added token has id 99"));
}

TEST(GgufTokenizer, BrokenMetadataIsRefused) {
  const auto changed = [](GgufMetadata metadata, const char* key, GgufValue value) {
    metadata.set(key, std::move(value));
    return error_of(metadata);
  };
  const auto without = [](GgufMetadata metadata, const char* key) {
    metadata.erase(key);
    return error_of(metadata);
  };
  EXPECT_THAT(changed(scored(), "tokenizer.ggml.model", std::string("bert")), HasSubstr("of model 'bert'"));
  EXPECT_THAT(without(scored(), "tokenizer.ggml.model"), HasSubstr("tokenizer.ggml.model"));
  EXPECT_THAT(without(scored(), "tokenizer.ggml.tokens"), HasSubstr("tokenizer.ggml.tokens is missing"));
  EXPECT_THAT(changed(scored(), "tokenizer.ggml.tokens", Strings{}), HasSubstr("missing or empty"));
  EXPECT_THAT(changed(scored(), "tokenizer.ggml.scores", std::vector<float>{1}), HasSubstr("has 1 entries"));
  EXPECT_THAT(without(scored(), "tokenizer.ggml.scores"), HasSubstr("tokenizer.ggml.scores is missing"));
  EXPECT_THAT(changed(scored(), "tokenizer.ggml.token_type", Ints{1, 2}), HasSubstr("has 2 entries"));
  EXPECT_THAT(changed(scored(), "tokenizer.ggml.token_type", Ints(8, 7)), HasSubstr("is 7, expected 0 to 6"));
  EXPECT_THAT(changed(scored(), "tokenizer.ggml.bos_token_id", uint32_t{8}), HasSubstr("expected an id below 8"));
  EXPECT_THAT(changed(scored(), "tokenizer.ggml.eot_token_id", uint32_t{99}), HasSubstr("eot_token_id is 99"));
  EXPECT_THAT(without(byte_level(), "tokenizer.ggml.merges"), HasSubstr("tokenizer.ggml.merges is missing"));
  EXPECT_THAT(changed(byte_level(), "tokenizer.ggml.merges", Strings{"ab"}), HasSubstr("expected two tokens"));
  EXPECT_THAT(changed(byte_level(), "tokenizer.ggml.merges", Strings{"a x"}), HasSubstr("'x' is no token"));
  EXPECT_THAT(changed(byte_level(), "tokenizer.ggml.merges", Strings{"b a"}), HasSubstr("makes 'ba'"));
  EXPECT_THAT(changed(byte_level(), "tokenizer.ggml.pre", uint32_t{1}), HasSubstr("tokenizer.ggml.pre"));
}

TEST(GgufTokenizer, Stories260K) {
  const GgufFile file = GgufFile::open(shared() / "data" / "models" / "stories260K" / "stories260K.gguf");
  const Tokenizer tokenizer(read_tokenizer_gguf(file.metadata));
  const std::string text = "Once upon a time, there was a little girl named Lily.\n\u00e9\U0001f600";
  const std::vector<int32_t> ids = tokenizer.encode(text);
  EXPECT_EQ(ids.front(), 1);
  EXPECT_LT(ids.size(), 50u);
  EXPECT_EQ(tokenizer.decode(ids), text);
  std::string streamed;
  for (const int32_t id : ids) streamed += tokenizer.decode_one(id);
  EXPECT_EQ(streamed, " " + text);
  EXPECT_TRUE(tokenizer.ends_generation(2));
}

}  // namespace
}  // namespace pare
