#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/random.h"
#include "text/bpe.h"
#include "text/token_matcher.h"

namespace pare {
namespace {

using ::testing::ElementsAre;

/// The definition, read aloud: merge the leftmost of the best pairs until there is none.
std::vector<int32_t> merge_slowly(const MergeTable& table, std::vector<int32_t> symbols) {
  while (true) {
    size_t best = 0;
    MergeTable::Rule rule;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const MergeTable::Rule found = table.find(symbols[i], symbols[i + 1]);
      if (found.rank < rule.rank) rule = found, best = i;
    }
    if (rule.rank == MergeTable::kNone) return symbols;
    symbols[best] = rule.result;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

TEST(Merger, AgreesWithTheDefinition) {
  Random random(1);
  for (int round = 0; round < 300; ++round) {
    MergeTable table;
    const int32_t symbols = 2 + static_cast<int32_t>(random.below(4));
    int32_t next = symbols;
    // Several rules may share a rank, as pieces of one score do.
    const auto rank = [&] { return static_cast<int32_t>(random.below(round % 2 ? 5 : 1000)); };
    for (int i = 0; i < 30; ++i) {
      const auto left = static_cast<int32_t>(random.below(static_cast<uint64_t>(next)));
      const auto right = static_cast<int32_t>(random.below(static_cast<uint64_t>(next)));
      if (table.find(left, right).rank == MergeTable::kNone) table.set(left, right, {rank(), next++});
    }
    Merger merger(table);
    for (const size_t length : {0u, 1u, 2u, 7u, 24u, 25u, 26u, 60u, 300u}) {
      std::vector<int32_t> word;
      for (size_t i = 0; i < length; ++i)
        word.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(symbols))));
      const std::vector<int32_t> expected = merge_slowly(table, word);
      merger.merge(word);
      ASSERT_EQ(word, expected) << "round " << round << ", length " << length;
    }
  }
}

TEST(Merger, AMillionEqualSymbols) {
  MergeTable table;
  for (int32_t i = 0; i < 10; ++i) table.set(i, i, {i, i + 1});
  std::vector<int32_t> word(1 << 20, 0);
  Merger(table).merge(word);
  EXPECT_EQ(word, std::vector<int32_t>(1 << 10, 10));
}

TEST(MergeTable, HoldsWhatWasSet) {
  MergeTable table;
  EXPECT_EQ(table.find(1, 2).rank, MergeTable::kNone);
  for (int32_t i = 0; i < 20000; ++i) table.set(i, 20000 - i, {i, 2 * i});
  table.set(7, 20000 - 7, {99, 98});
  for (int32_t i = 0; i < 20000; ++i) {
    ASSERT_EQ(table.find(i, 20000 - i).rank, i == 7 ? 99 : i);
    ASSERT_EQ(table.find(i, 20000 - i).result, i == 7 ? 98 : 2 * i);
    ASSERT_EQ(table.find(20001 - i, i + 1).rank, MergeTable::kNone);
  }
}

TEST(TokenMatcher, LeftmostThenLongest) {
  const TokenMatcher matcher({{"ab", 0}, {"abcd", 1}, {"bc", 2}, {"d", 3}, {"", 4}, {"ab", 5}, {"\xff", 6}});
  const auto all = [&](std::string_view text) {
    std::vector<int32_t> found;
    size_t at = 0;
    while (const auto match = matcher.find(text, at)) found.push_back(match->value), at = match->end;
    return found;
  };
  EXPECT_THAT(all("xabcxabcdbcd\xff"), ElementsAre(0, 1, 2, 3, 6));
  EXPECT_THAT(all(""), ElementsAre());
  EXPECT_EQ(matcher.match_at("xab", 0), std::nullopt);
  EXPECT_EQ(matcher.match_at("xab", 1)->end, 3u);
  EXPECT_THROW(TokenMatcher({{std::string(2000, 'a'), 0}}), std::runtime_error);
  EXPECT_EQ(TokenMatcher().find("a", 0), std::nullopt);
}

}  // namespace
}  // namespace pare
