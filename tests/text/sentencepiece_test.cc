#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <functional>

#include "base/error.h"
#include "refusal.h"
#include "text/chars_map.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A protocol buffer, written field by field.
class Message {
 public:
  Message& number(uint32_t field, uint64_t value) {
    put(field << 3);
    put(value);
    return *this;
  }
  Message& real(uint32_t field, float value) {
    put(field << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int i = 0; i < 4; ++i) bytes_.push_back(static_cast<char>(bits >> (8 * i)));
    return *this;
  }
  Message& bytes(uint32_t field, std::string_view value) {
    put(field << 3 | 2);
    put(value.size());
    bytes_ += value;
    return *this;
  }
  Message& piece(std::string_view text, float score, uint64_t type) {
    return bytes(1, Message().bytes(1, text).real(2, score).number(3, type).done());
  }
  const std::string& done() const { return bytes_; }

 private:
  void put(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }
  std::string bytes_;
};

Message pieces() {
  Message model;
  model.piece("<unk>", 0, 2).piece("<s>", 0, 3).piece("</s>", 0, 3);
  model.piece("\u2581a", -1, 1).piece("ab", -2, 1).piece("\u2581", -3, 1).piece("a", -4, 1).piece("b", -5, 1);
  return model;
}
std::string trainer(uint64_t type = 2) { return Message().number(3, type).done(); }
std::string normalizer() { return Message().number(3, 1).number(4, 0).number(5, 1).done(); }

TokenizerData parse(std::string_view bytes) { return parse_sentencepiece(std::as_bytes(std::span(bytes)), "m.model"); }

std::string error_of(std::string_view bytes) {
  return test::refusal_of([&] { const Tokenizer tokenizer(parse(bytes)); });
}

TEST(SentencePiece, EncodesAndDecodes) {
  const Tokenizer tokenizer(parse(pieces().bytes(2, trainer()).bytes(3, normalizer()).done()));
  EXPECT_THAT(tokenizer.encode("ab ab"), ElementsAre(1, 3, 7, 3, 7));
  EXPECT_THAT(tokenizer.encode("bab", {.add_special = false}), ElementsAre(5, 7, 4));
  EXPECT_THAT(tokenizer.encode("xyb", {.add_special = false}), ElementsAre(5, 0, 7));
  EXPECT_THAT(tokenizer.encode("a</s>"), ElementsAre(1, 3, 2));
  EXPECT_THAT(tokenizer.encode("", {.add_special = false}), ElementsAre());
  const std::vector<int32_t> ids = {1, 3, 7, 3, 2};
  EXPECT_EQ(tokenizer.decode(ids), "ab a");
  EXPECT_EQ(tokenizer.decode(ids, true), "<s> ab a</s>");
  EXPECT_EQ(tokenizer.decode_one(3), " a");
  EXPECT_TRUE(tokenizer.ends_generation(2));
}

TEST(SentencePiece, TheLeftmostOfEqualScoresIsMergedFirst) {
  Message model;
  model.piece("<unk>", 0, 2)
      .piece("\u2581", 0, 1)
      .piece("a", 0, 1)
      .piece("b", 0, 1)
      .piece("ab", -1, 1)
      .piece("ba", -1, 1);
  const Tokenizer tokenizer(parse(model.bytes(2, trainer()).bytes(3, normalizer()).done()));
  EXPECT_THAT(tokenizer.encode("aba"), ElementsAre(1, 4, 2));
  EXPECT_THAT(tokenizer.encode("bab"), ElementsAre(1, 5, 3));
}

TEST(SentencePiece, CharactersThatAreNoPieceStillMerge) {
  Message model;
  model.piece("<unk>", 0, 2).piece("\u2581", 0, 1).piece("xy", -1, 1).piece("xyz", -2, 1);
  const Tokenizer tokenizer(parse(model.bytes(2, trainer()).bytes(3, normalizer()).done()));
  EXPECT_THAT(tokenizer.encode("xyz"), ElementsAre(1, 3));
  EXPECT_THAT(tokenizer.encode("xyx?z"), ElementsAre(1, 2, 0));
}

TEST(SentencePiece, UserDefinedPiecesStandForThemselves) {
  Message model = pieces();
  model.piece("a a", 0, 4);
  const Tokenizer tokenizer(parse(model.bytes(2, trainer()).bytes(3, normalizer()).done()));
  EXPECT_THAT(tokenizer.encode("ba\u2581a", {.add_special = false}), ElementsAre(5, 7, 6, 3));
  Message symbol = pieces();
  symbol.piece("a\u2581a", 0, 4);
  const Tokenizer found(parse(symbol.bytes(2, trainer()).bytes(3, normalizer()).done()));
  EXPECT_THAT(found.encode("ba ab", {.add_special = false}), ElementsAre(5, 7, 8, 7));
}

TEST(SentencePiece, ByteFallback) {
  Message model = pieces();
  for (int byte = 0; byte < 256; ++byte) model.piece(fmt::format("<0x{:02X}>", byte), 0, 6);
  const std::string spec = Message().number(3, 2).number(35, 1).done();
  const Tokenizer tokenizer(parse(model.bytes(2, spec).bytes(3, normalizer()).done()));
  EXPECT_THAT(tokenizer.encode("\u00e9", {.add_special = false}), ElementsAre(5, 8 + 0xc3, 8 + 0xa9));
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{5, 8 + 0xc3, 8 + 0xa9}), "\u00e9");
  EXPECT_EQ(tokenizer.decode_one(8 + 0xc3), "\xc3");
  EXPECT_THAT(error_of(pieces().bytes(2, spec).done()), HasSubstr("0 byte pieces, expected 256"));
}

TEST(SentencePiece, WhatIsNotSupportedIsRefusedByName) {
  EXPECT_THAT(error_of(pieces().bytes(2, trainer(1)).done()), HasSubstr("of type unigram, which is not supported"));
  EXPECT_THAT(error_of(pieces().bytes(2, trainer(9)).done()), HasSubstr("of type 9"));
  EXPECT_THAT(error_of(pieces().done()), HasSubstr("of type unigram"));
  EXPECT_THAT(error_of(pieces().bytes(2, Message().number(3, 2).number(24, 1).done()).done()),
              HasSubstr("treat_whitespace_as_suffix"));
  EXPECT_THAT(error_of(pieces().bytes(2, trainer()).bytes(3, Message().number(5, 0).done()).done()),
              HasSubstr("escape_whitespaces"));
  EXPECT_THAT(error_of(pieces().bytes(2, trainer()).bytes(5, Message().bytes(2, "x").done()).done()),
              HasSubstr("denormalizer"));
  EXPECT_THAT(error_of(pieces().piece("u", 0, 5).bytes(2, trainer()).done()), HasSubstr("('u') is unused"));
  EXPECT_THAT(error_of("IQ== 0\nIg== 1\n"), HasSubstr("a tiktoken vocabulary"));
}

TEST(SentencePiece, BrokenModelsAreRefused) {
  EXPECT_THAT(error_of(""), HasSubstr("it has no pieces"));
  EXPECT_THAT(error_of("\x0a\x7f"), HasSubstr("longer than what is left"));
  EXPECT_THAT(error_of("\x0a"), HasSubstr("a number cut short"));
  EXPECT_THAT(error_of("\x0b"), HasSubstr("unknown wire type"));
  EXPECT_THAT(error_of(std::string_view("\x00\x00", 2)), HasSubstr("field number out of range"));
  EXPECT_THAT(error_of("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), HasSubstr("more than 64 bits"));
  EXPECT_THAT(error_of("\x15\x01"), HasSubstr("a number cut short"));
  EXPECT_THAT(error_of(pieces().piece("\xff", 0, 1).done()), HasSubstr("piece 8 is not UTF-8"));
  EXPECT_THAT(error_of(pieces().piece("", 0, 1).done()), HasSubstr("piece 8 is empty"));
  EXPECT_THAT(error_of(pieces().piece("x", 0, 7).done()), HasSubstr("has type 7"));
  EXPECT_THAT(error_of(pieces().piece("x", 0, 2).bytes(2, trainer()).done()), HasSubstr("both the unknown token"));
  EXPECT_THAT(error_of(Message().piece("x", 0, 1).bytes(2, trainer()).done()), HasSubstr("no piece is the unknown"));
  EXPECT_THAT(error_of(pieces().piece("a", 0, 1).bytes(2, trainer()).done()), HasSubstr("has the ids 6 and 8"));
  EXPECT_THAT(error_of(pieces().piece("x", std::nanf(""), 1).bytes(2, trainer()).done()), HasSubstr("not a number"));
  EXPECT_THAT(error_of(pieces().piece(std::string(5000, 'x'), 0, 1).bytes(2, trainer()).done()),
              HasSubstr("5000 bytes"));
  const std::string map = Message().bytes(2, "abc").done();
  EXPECT_THAT(error_of(pieces().bytes(2, trainer()).bytes(3, map).done()), HasSubstr("a character map of 3 bytes"));
}

TEST(CharsMap, BrokenMapsAreRefusedOrHarmless) {
  EXPECT_THROW(CharsMap(""), Error);
  EXPECT_THROW(CharsMap(std::string_view("\x08\x00\x00\x00", 4)), Error);
  EXPECT_THROW(CharsMap(std::string_view("\x03\x00\x00\x00xxxx", 8)), Error);
  EXPECT_THROW(CharsMap(std::string_view("\x00\x00\x00\x00xxxx", 8)), Error);
  // A trie of units that lead everywhere: each search ends, and what it returns lies within the replacements.
  std::string bytes("\x00\x04\x00\x00", 4);
  for (int i = 0; i < 1024; ++i) bytes.push_back(static_cast<char>(i * 37));
  bytes += "replacement";
  const CharsMap map(bytes);
  const std::string text(1000, 'a');
  EXPECT_LE(map.rewrite_start(text).length, text.size());
  EXPECT_GE(map.rewrite_start(text).length, 1u);
}

}  // namespace
}  // namespace pare
