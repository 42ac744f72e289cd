#include "formats/names.h"

#include <gtest/gtest.h>

namespace pare {
namespace {

TEST(Names, PrintableIsUtf8WithoutControlCharacters) {
  for (const char* text :
       {"", "blk.0.attn_q.weight", "é", "€", "🙂", "\xef\xbf\xbd", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_printable(text)) << text;
  }
  for (const char* text : {"\x01", "a\n", "\x7f", "\xc2\x80", "\xc2\x9f",               // control characters
                           "\x80", "\xff", "\xc3", "a\xe2\x82", "\xf0\x9f\x99",         // cut characters
                           "\xc0\xaf", "\xc1\xbf", "\xe0\x80\x80", "\xf0\x80\x80\x80",  // overlong
                           "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80"}) {   // surrogate, past U+10FFFF
    EXPECT_FALSE(is_printable(text)) << quote_name(text);
  }
  EXPECT_FALSE(is_printable(std::string_view("a\0b", 3)));
}

TEST(Names, QuotesStayOnOneShortLine) {
  EXPECT_EQ(quote_name("token_embd.weight"), "'token_embd.weight'");
  EXPECT_EQ(quote_name("é\n\xff"), "'é\\x0a\\xff'");
  EXPECT_EQ(quote_name(std::string(60'000, 'x')), "'" + std::string(100, 'x') + "...'");
  EXPECT_EQ(quote_name(std::string(100, 'x')), "'" + std::string(100, 'x') + "'");
}

}  // namespace
}  // namespace pare
