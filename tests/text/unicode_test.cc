#include "text/unicode.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace pare {
namespace {

std::string valid(std::string_view text) {
  std::string storage;
  return std::string(to_valid_utf8(text, storage));
}

TEST(Unicode, EveryCharacterIsReadAsItWasWritten) {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xd800 && code < 0xe000) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Char read = decode_utf8(text + "x");
    ASSERT_EQ(read.code, code);
    ASSERT_EQ(read.length, text.size());
    ASSERT_EQ(utf8_length(text[0]), text.size());
  }
}

// Unicode standard, section 3.9, "U+FFFD Substitution of Maximal Subparts", tables 3-8 to 3-11.
TEST(Unicode, BrokenTextIsReplacedByLongestStarts) {
  const std::string r = "\ufffd";
  EXPECT_EQ(valid("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(valid("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(valid("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(valid("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), r + r + r + r + "A");
  EXPECT_EQ(valid("\xf0\x9f\x98"), r);
  EXPECT_EQ(valid("a\xe2\x82"
                  "b\xff"),
            "a" + r + "b" + r);
}

TEST(Unicode, ValidTextIsNotCopied) {
  const std::string text = "a\u00e9\ufffd\u2581\U0001f600";
  std::string storage;
  EXPECT_EQ(to_valid_utf8(text, storage).data(), text.data());
  EXPECT_TRUE(storage.empty());
}

TEST(Unicode, BytesAndCharactersOfByteLevelAreOneToOne) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) {
    all.push_back(static_cast<char>(byte));
    const char32_t character = byte_level_character(static_cast<uint8_t>(byte));
    ASSERT_EQ(byte_of_character(character), byte);
    ASSERT_FALSE(is_white_space(character));
  }
  EXPECT_EQ(bytes_of_piece(byte_level_text(all)), all);
  EXPECT_EQ(byte_level_text(" \n"), "\u0120\u010a");
  EXPECT_EQ(byte_of_character(U' '), std::nullopt);
  EXPECT_EQ(byte_of_character(0x144), std::nullopt);
  EXPECT_EQ(bytes_of_piece("a b"), std::nullopt);
}

TEST(Unicode, FallbackPieces) {
  EXPECT_EQ(byte_of_fallback_piece("<0x0A>"), 10);
  EXPECT_EQ(byte_of_fallback_piece("<0xfF>"), 255);
  for (const char* other : {"", "<0x0>", "<0x0G>", "<0x0A> ", "(0x0A>", "<0x0A)"}) {
    EXPECT_EQ(byte_of_fallback_piece(other), std::nullopt) << other;
  }
}

TEST(Unicode, NormalForms) {
  EXPECT_EQ(normalize_unicode("e\u0301", NormalForm::kNfc), "\u00e9");
  EXPECT_EQ(normalize_unicode("\u00e9", NormalForm::kNfd), "e\u0301");
  EXPECT_EQ(normalize_unicode("\ufb01\u00b2", NormalForm::kNfkc), "fi2");
  EXPECT_EQ(normalize_unicode("\ufb01\u00b2", NormalForm::kNfc), "\ufb01\u00b2");
  EXPECT_EQ(normalize_unicode("\u1e69", NormalForm::kNfkd), "s\u0323\u0307");
  EXPECT_EQ(normalize_unicode("s\u0307\u0323", NormalForm::kNfc), "\u1e69");
  EXPECT_EQ(normalize_unicode("\u1112\u1161\u11ab", NormalForm::kNfc), "\ud55c");
}

TEST(Unicode, ManyMarksAreOrderedWithoutSwappingNeighbours) {
  std::string marks = "o", ordered = "o";
  for (int i = 0; i < 200000; ++i) marks += "\u0301\u0323";
  for (int i = 0; i < 200000; ++i) ordered += "\u0323";
  for (int i = 0; i < 200000; ++i) ordered += "\u0301";
  EXPECT_EQ(normalize_unicode(marks, NormalForm::kNfd), ordered);
}

TEST(Unicode, Classes) {
  for (const char32_t c : {U' ', U'\t', U'\u00a0', U'\u0085', U'\u2028', U'\u3000'}) EXPECT_TRUE(is_white_space(c));
  for (const char32_t c : {U'\u200b', U'\u180e', U'\u001f', U'a', U'\ufeff'}) EXPECT_FALSE(is_white_space(c));
  for (const char32_t c : {U'a', U'_', U'9', U'\u00e9', U'\u0301', U'\u65e5', U'\u0967', U'\u203f', U'\u24b6'}) {
    EXPECT_TRUE(is_word_character(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {U'-', U' ', U'\u00b2', U'\u20ac', U'\u2581'}) EXPECT_FALSE(is_word_character(c));
  std::string lower;
  for (const char32_t c : {U'A', U'\u00c9', U'\u0130', U'\u1e9e', U'\u03a3', U'x'}) append_lowercase(lower, c);
  EXPECT_EQ(lower, "a\u00e9i\u0307\u00df\u03c3x");
}

}  // namespace
}  // namespace pare
