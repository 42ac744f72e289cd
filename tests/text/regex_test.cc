#include "text/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "refusal.h"
#include "text/regex_syntax.h"

namespace pare {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  const Regex regex(pattern);
  std::vector<std::string> found;
  Regex::Matcher(regex).for_each(
      text, [&](RegexMatch match) { found.emplace_back(text.substr(match.begin, match.end - match.begin)); });
  return found;
}

std::string error_of(std::string_view pattern) {
  return test::refusal_of([&] { const Regex regex(pattern); });
}

TEST(Regex, WhatDiffersFromPcreIsRewritten) {
  EXPECT_EQ(to_pcre2(R"(\s\S\d\D[\s\d])"), R"(\p{White_Space}\P{White_Space}\p{Nd}\P{Nd}[\p{White_Space}\p{Nd}])");
  EXPECT_EQ(to_pcre2(R"((a)(?:b)(?=c)(?!d)(?<=e)(?<!f)(?>g))"), R"((?:a)(?:b)(?=c)(?!d)(?<=e)(?<!f)(?>g))");
  EXPECT_EQ(to_pcre2("(?i:a)(?m:.)"), "(?i:a)(?s:.)");
  EXPECT_EQ(to_pcre2("x(?:a(?i)b|c)d"), "x(?:a(?i:b|c))d");
  EXPECT_EQ(to_pcre2("(?i)b|c"), "(?i:b|c)");
  EXPECT_EQ(to_pcre2(R"(\p{L}\p{^Lu}\P{^N}\p{Han})"), R"(\p{L}\P{Lu}\p{N}\p{sc:Han})");
  EXPECT_EQ(to_pcre2("a{,3}b{2}c{1,}?{x"), "a{0,3}b{2}c{1,}?\\{x");
  EXPECT_EQ(to_pcre2(R"(\v\h\x41\x{1F600}\u0041)"), R"(\x0b[0-9a-fA-F]\x{41}\x{1F600}\x{0041})");
  EXPECT_EQ(to_pcre2("a?+b++c*+"), "a?+b++c*+");
}

TEST(Regex, WhatHasNoCounterpartIsRefusedByName) {
  const std::pair<const char*, const char*> refused[] = {
      {R"(\R)", "has \\R"},
      {R"(\K)", "has \\K"},
      {R"((a)\1)", "has \\1"},
      {R"([\W])", "has \\W in a class"},
      {"[a&&b]", "intersection of classes"},
      {"[a[b]]", "a class within a class"},
      {"[[:alpha:]]", "a class within a class"},
      {"[]a]", "an empty class"},
      {"[ab", "a class that does not end"},
      {"(ab", "a group that does not end"},
      {"ab)", "a ')' without a group"},
      {"(?<name>a)", "a group of an unknown kind"},
      {"(?#no)", "a group of an unknown kind"},
      {"(?", "a group of an unknown kind"},
      {"(?i", "a group of an unknown kind"},
      {"a{1,2}+", "'+' after an interval"},
      {"a{2}?", "'?' after an exact count"},
      {"*a", "a quantifier that follows nothing"},
      {"a**", "a quantifier that follows nothing"},
      {"{2}", "a quantifier that follows nothing"},
      {"a\\", "a backslash at its end"},
      {R"(\pL)", "a property without braces"},
      {R"(\p{})", "a property of an unknown kind"},
      {R"(\p{L)", "a property of an unknown kind"},
      {R"(\p{Nonsense})", "does not compile"},
      {R"(\xff)", "a byte that is not ASCII"},
      {R"(\x4)", "a character code of an unknown kind"},
      {R"(\x{110000})", "does not compile"},
      {"(?<=a+)b", "does not compile"},
      {"(?i:\u00df)", "not ASCII within (?i)"},
      {"(?i)[\u00df]", "not ASCII within (?i)"},
      {"(?i:MASS)", "two letters within (?i)"},
      {"[b-a]", "does not compile"},
  };
  for (const auto& [pattern, message] : refused) EXPECT_THAT(error_of(pattern), HasSubstr(message)) << pattern;
  EXPECT_THAT(error_of(std::string(40000, 'a')), HasSubstr("40000 bytes"));
  EXPECT_NE(error_of(std::string(3000, '(') + std::string(3000, ')')), "");
  EXPECT_NE(error_of("(((((a{1000}){1000}){1000}){1000}){1000})"), "");
}

TEST(Regex, EscapedTextMatchesItself) {
  const std::string text = "a.b*c [x](y){2} ^$|\\ \n\u00e9#-_<|>";
  EXPECT_THAT(matches(escape_regex(text), "__" + text + "__"), ElementsAre(text));
}

TEST(Regex, MatchesOfGpt2sPattern) {
  EXPECT_THAT(matches(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
                      "It's  12 caf\u00e9s!\n\n x"),
              ElementsAre("It", "'s", " ", " 12", " caf\u00e9s", "!", "\n\n", " x"));
}

TEST(Regex, EmptyMatchesRightAfterAMatchAreNone) {
  EXPECT_THAT(matches("x*", "axx\u00e9"), ElementsAre("", "xx", ""));
  EXPECT_THAT(matches("", "ab"), ElementsAre("", "", ""));
  EXPECT_THAT(matches("b|(?=b)", "ab"), ElementsAre("b"));
}

TEST(Regex, LinesAsInOniguruma) {
  EXPECT_THAT(matches("^.", "a\nb\n\r\nc"), ElementsAre("a", "b", "\r", "c"));
  EXPECT_THAT(matches(".$", "a\nb\n"), ElementsAre("a", "b"));
}

TEST(Regex, WorkBeyondReasonEndsInAnError) {
  const std::string text(5000, 'a');
  EXPECT_THROW(matches("(?:a+)+b|(?:a|aa)+c", text + "x b c"), Error);
}

TEST(Regex, LongGroupsNeedMoreThanTheSmallStack) {
  std::string text;
  for (int i = 0; i < 300000; ++i) text += "\u00e9";
  EXPECT_THAT(matches("(?:\\p{L}\\p{M}*)+", text), ElementsAre(text));
  EXPECT_THAT(matches("(?:(a)|(b)|\\p{L})+", text), ElementsAre(text));
}

}  // namespace
}  // namespace pare
