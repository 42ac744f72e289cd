#pragma once
#include <gtest/gtest.h>

#include "text/tokenizer.h"

namespace pare::test {

/// What a format must give back of a tokenizer that was written to it.
inline void expect_same_tokenizer(const TokenizerData& again, const TokenizerData& data) {
  EXPECT_EQ(again.pieces, data.pieces);
  EXPECT_EQ(again.scores, data.scores);
  EXPECT_EQ(again.types, data.types);
  EXPECT_EQ(again.merges, data.merges);
  EXPECT_EQ(again.added, data.added);
  EXPECT_EQ(again.normalizer, data.normalizer);
  EXPECT_EQ(again.pre_tokenizer, data.pre_tokenizer);
  EXPECT_EQ(again.gguf_pre, data.gguf_pre);
  EXPECT_EQ(again.bos, data.bos);
  EXPECT_EQ(again.eos, data.eos);
  EXPECT_EQ(again.add_bos, data.add_bos);
  EXPECT_EQ(again.add_eos, data.add_eos);
  EXPECT_EQ(again.chat_template, data.chat_template);
  EXPECT_EQ(again.end_of_generation, data.end_of_generation);
}

}  // namespace pare::test
