#include "evaluate/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "evaluate/run_windows.h"
#include "refusal.h"

namespace pare {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ModelConfig small_config(int64_t context = 64) {
  ModelConfig config;
  config.family = "llama";
  config.hidden = 32;
  config.vocabulary = 50;
  config.context = context;
  AttentionConfig attention;
  attention.heads = 4, attention.kv_heads = 2, attention.head_dim = 8;
  attention.scale = 1 / std::sqrt(8.0f);
  attention.rope.dims = 8;
  MlpConfig mlp;
  mlp.width = 64;
  config.layers.assign(3, {attention, mlp});
  config.layers[1].attention.reset();
  return config;
}

class PerplexityTest : public testing::Test {
 protected:
  PerplexityTest() : pool_(2), model_(Model::random(small_config(), DType::kF32, pool_, 7)) {}

  std::vector<int32_t> text(int64_t count) const {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * i * 7 + i * 3) % 50;
    return tokens;
  }
  TextWindows windows(int64_t tokens, const WindowOptions& options) const {
    return make_windows(text(tokens), options, *model_, tokenizer_);
  }
  std::string refusal(int64_t tokens, const WindowOptions& options) const {
    return test::refusal_of([&] { windows(tokens, options); });
  }

  ThreadPool pool_;
  std::unique_ptr<Model> model_;
  TokenizerData tokenizer_;
};

TEST_F(PerplexityTest, StridedWindowsCountEachTokenOnce) {
  // The guide with max_length 8, stride 4, 18 tokens: windows [0,8) [4,12) [8,16) [12,18), targets 8, 4, 4, 2 (the very
  // first token has nothing before it).
  const TextWindows w = windows(18, {PerplexityProtocol::kStrided, 8, 4, 0});
  ASSERT_EQ(w.windows.size(), 4u);
  const std::vector<int32_t> all = text(18);
  const std::vector<int64_t> begin = {0, 4, 8, 12}, size = {8, 8, 8, 6}, first = {1, 4, 4, 4};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(w.windows[i].tokens, std::vector<int32_t>(all.begin() + begin[i], all.begin() + begin[i] + size[i]));
    EXPECT_EQ(w.windows[i].first, first[i]);
    EXPECT_EQ(w.windows[i].last, size[i]);
  }
  EXPECT_EQ(w.counted(), 17);
  // The guide multiplies each window's mean loss by one less than its targets.
  EXPECT_EQ(w.windows[0].weight, 1);
  EXPECT_EQ(w.windows[1].weight, 3.0 / 4);
  EXPECT_EQ(w.windows[3].weight, 1.0 / 2);
}

TEST_F(PerplexityTest, StridedWithoutOverlapLosesEachFirstToken) {
  const TextWindows w = windows(20, {PerplexityProtocol::kStrided, 8, 8, 0});
  EXPECT_EQ(w.windows.size(), 3u);
  EXPECT_EQ(w.counted(), 17);
  // One token alone in the last window can be predicted from nothing.
  EXPECT_EQ(windows(17, {PerplexityProtocol::kStrided, 8, 8, 0}).counted(), 14);
}

TEST_F(PerplexityTest, ChunkedCountsTheSecondHalfAfterItsFirst) {
  // llama.cpp with n_ctx 8: logits of positions 4, 5, 6 score tokens 5, 6, 7; the rest of the text is left out.
  const TextWindows w = windows(21, {PerplexityProtocol::kChunked, 8, 0, 0});
  ASSERT_EQ(w.windows.size(), 2u);
  for (const auto& window : w.windows) {
    EXPECT_EQ(window.first, 5);
    EXPECT_EQ(window.last, 8);
  }
  EXPECT_EQ(w.windows[1].tokens[0], text(21)[8]);
}

TEST_F(PerplexityTest, ChunkedBeginsWithBosWhereTheModelAddsOne) {
  tokenizer_.bos = 49;
  EXPECT_EQ(windows(16, {PerplexityProtocol::kChunked, 8, 0, 0}).windows[1].tokens[0], text(16)[8]);
  tokenizer_.add_bos = true;
  const TextWindows w = windows(16, {PerplexityProtocol::kChunked, 8, 0, 0});
  EXPECT_EQ(w.windows[0].tokens[0], 49);
  EXPECT_EQ(w.windows[1].tokens[0], 49);
  EXPECT_EQ(w.windows[1].tokens[1], text(16)[9]);
  EXPECT_EQ(windows(16, {PerplexityProtocol::kStrided, 8, 8, 0}).windows[1].tokens[0], text(16)[8]);
}

TEST_F(PerplexityTest, DefaultsFollowTheModel) {
  EXPECT_EQ(windows(200, {}).windows[0].tokens.size(), 64u);
  EXPECT_EQ(windows(200, {}).windows[1].first, 32);
  EXPECT_EQ(windows(200, {PerplexityProtocol::kChunked, 0, 0, 0}).windows.size(), 3u);
  EXPECT_EQ(windows(200, {PerplexityProtocol::kStrided, 8, 4, 12}).counted(), 11);
}

TEST_F(PerplexityTest, RefusesWhatMakesNoSense) {
  EXPECT_THAT(refusal(1, {}), HasSubstr("the text is too short: it has 1 tokens"));
  EXPECT_THAT(refusal(7, {PerplexityProtocol::kChunked, 8, 0, 0}), HasSubstr("chunked perplexity needs at least 8"));
  EXPECT_THAT(refusal(50, {PerplexityProtocol::kStrided, 8, 9, 0}),
              HasSubstr("stride 9 is larger than the context of 8"));
  EXPECT_THAT(refusal(50, {PerplexityProtocol::kStrided, -1, 0, 0}), HasSubstr("must not be negative"));
  EXPECT_THAT(refusal(50, {PerplexityProtocol::kChunked, 3, 0, 0}), HasSubstr("a context of 3 tokens is too short"));
  EXPECT_THROW(parse_protocol("sliding"), Error);
  EXPECT_EQ(parse_protocol("chunked"), PerplexityProtocol::kChunked);
}

/// The logits of each row of one window, run alone.
std::vector<float> run_alone(Model& model, const std::vector<int32_t>& tokens) {
  KvCache cache(model.config(), 1, 4096, DType::kF32);
  Batch batch;
  batch.add_span(tokens, 0, 0, true);
  std::vector<float> logits(tokens.size() * static_cast<size_t>(model.config().vocabulary));
  model.forward(batch, cache, logits);
  return logits;
}

TEST_F(PerplexityTest, ShowsEachCountedPredictionInOrder) {
  // Windows of several lengths: some share a batch, one is longer than a batch.
  const std::vector<int32_t> all = text(1500);
  TextWindows w;
  int64_t at = 0;
  for (const int64_t size : {40, 90, 700, 2, 300, 300}) {
    w.windows.push_back({{all.begin() + at, all.begin() + at + size}, std::min<int64_t>(size - 1, 1 + size / 3), size});
    at += size;
  }
  std::vector<std::pair<int32_t, std::vector<float>>> expected;
  for (const auto& window : w.windows) {
    const std::vector<float> logits = run_alone(*model_, window.tokens);
    for (int64_t i = window.first; i < window.last; ++i) {
      expected.push_back(
          {window.tokens[static_cast<size_t>(i)], {logits.begin() + (i - 1) * 50, logits.begin() + i * 50}});
    }
  }
  size_t seen = 0;
  score_windows(
      *model_, w, DType::kF32,
      [&](int64_t index, int32_t token, std::span<const float> logits) {
        ASSERT_EQ(static_cast<size_t>(index), seen);
        ASSERT_LT(seen, expected.size());
        EXPECT_EQ(token, expected[seen].first);
        ASSERT_EQ(std::vector<float>(logits.begin(), logits.end()), expected[seen].second) << index;
        ++seen;
      },
      no_progress(), nullptr);
  EXPECT_EQ(seen, expected.size());
  EXPECT_EQ(static_cast<int64_t>(seen), w.counted());
}

TEST_F(PerplexityTest, IsTheExponentialOfTheMeanInDoublePrecision) {
  const TextWindows w = windows(150, {PerplexityProtocol::kStrided, 32, 32, 0});
  std::vector<double> nats;
  score_windows(
      *model_, w, DType::kF32,
      [&](int64_t, int32_t token, std::span<const float> logits) {
        double sum = 0;
        for (const float x : logits) sum += std::exp(double{x});
        nats.push_back(std::log(sum) - double{logits[static_cast<size_t>(token)]});
      },
      no_progress(), nullptr);
  const double mean = std::accumulate(nats.begin(), nats.end(), 0.0) / static_cast<double>(nats.size());
  const PerplexityResult result = perplexity(*model_, w, DType::kF32, no_progress(), nullptr);
  EXPECT_NEAR(result.nats_per_token, mean, 1e-6);
  EXPECT_NEAR(result.perplexity, std::exp(mean), 1e-5 * std::exp(mean));
  EXPECT_EQ(result.tokens, 145);
}

TextWindows counting(const std::vector<std::pair<int64_t, double>>& counts) {
  TextWindows windows;
  for (const auto& [count, weight] : counts) windows.windows.push_back({{}, 1, 1 + count, weight});
  return windows;
}

TEST(Summarize, GivesMeanAndItsStandardError) {
  const std::vector<double> nats = {1, 2, 3, 6};
  const PerplexityResult result = summarize(counting({{1, 1}, {3, 1}}), nats);
  EXPECT_DOUBLE_EQ(result.nats_per_token, 3);
  EXPECT_DOUBLE_EQ(result.perplexity, std::exp(3.0));
  EXPECT_DOUBLE_EQ(result.standard_error, std::sqrt(14.0 / 4 / 3));
  EXPECT_EQ(result.tokens, 4);
  EXPECT_DOUBLE_EQ(summarize(counting({{2, 1}, {2, 0.5}}), nats).nats_per_token, 2.5);
}

TEST_F(PerplexityTest, StopsWhenAsked) {
  CancelFlag cancel{true};
  EXPECT_THROW(perplexity(*model_, windows(100, {}), DType::kF32, no_progress(), &cancel), Interrupted);
}

}  // namespace
}  // namespace pare
