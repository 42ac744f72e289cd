#include "evaluate/speed.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace pare {
namespace {

ModelConfig small_config() {
  AttentionConfig attention;
  attention.heads = 4;
  attention.kv_heads = 2;
  attention.head_dim = 16;
  attention.scale = 0.25f;
  attention.rope.dims = 16;
  MlpConfig mlp;
  mlp.width = 96;
  ModelConfig config;
  config.family = "llama";
  config.hidden = 64;
  config.vocabulary = 128;
  config.context = 256;
  config.layers = {{attention, mlp}, {std::nullopt, mlp}, {attention, std::nullopt}};
  return config;
}

// q and output 64 x 64, k and v 32 x 64; gate, up and down 96 x 64; output 128 x 64.
constexpr int64_t kAttention = 64 * 64 * 2 + 32 * 64 * 2;
constexpr int64_t kMlp = 3 * 96 * 64;
constexpr int64_t kOutput = 128 * 64;
constexpr int64_t kMatrices = 2 * kAttention + 2 * kMlp + kOutput;

TEST(Speed, MedianOfEvenAndOddCounts) {
  EXPECT_EQ((SpeedSamples{{3, 1, 2}}).median(), 2);
  EXPECT_EQ((SpeedSamples{{4, 1, 2, 3}}).median(), 2.5);
  EXPECT_EQ((SpeedSamples{{4, 1, 2}}).best(), 4);
  EXPECT_EQ((SpeedSamples{{4, 1, 2}}).worst(), 1);
  EXPECT_EQ(SpeedSamples{}.median(), 0);
}

TEST(Speed, RatioIsToTheNearerCeilingAndFarAboveOneInvalidates) {
  SpeedReport report;
  SpeedResult result;
  result.speed.samples = {10};
  result.memory_seconds = 0.08;
  result.compute_seconds = 0.02;
  EXPECT_TRUE(result.memory_bound());
  EXPECT_DOUBLE_EQ(result.ratio(), 0.8);
  report.results = {result};
  EXPECT_FALSE(report.invalid());
  report.results[0].memory_seconds = 0.102;  // the typical pattern; the luckiest says that it may be
  report.results[0].least_memory_seconds = 0.098;
  EXPECT_FALSE(report.invalid());
  report.results[0].least_memory_seconds = 0.101;
  EXPECT_TRUE(report.invalid());
  report.results[0] = result;
  report.results[0].compute_seconds = 0.11;
  EXPECT_FALSE(report.results[0].memory_bound());
  EXPECT_TRUE(report.invalid());
}

TEST(Speed, CountsWhatATokenReadsAndComputes) {
  ThreadPool pool(2);
  const auto model = Model::random(small_config(), DType::kF16, pool, 1);
  SpeedOptions options;
  options.prompts = {9};
  options.generated = 5;
  options.context = 3;
  options.runs = 2;
  const SpeedReport report = measure_speed(*model, options, no_progress(), nullptr, [] { return int64_t{42}; });
  EXPECT_EQ(report.threads, 2);
  EXPECT_EQ(report.peak_before_ceilings, 42);
  ASSERT_EQ(report.results.size(), 2u);

  const SpeedResult& prefill = report.results[0];
  EXPECT_FALSE(prefill.decode);
  EXPECT_EQ(prefill.speed.samples.size(), 2u);
  EXPECT_GT(prefill.speed.worst(), 0);
  // Weights are read once for all 9; logits come of the last token; a query sees 5 tokens on average.
  EXPECT_NEAR(prefill.weight_bytes, 2.0 * kMatrices / 9, 0.05 * kMatrices);
  EXPECT_DOUBLE_EQ(prefill.float_multiply_adds,
                   static_cast<double>(kMatrices - kOutput) + kOutput / 9.0 + 2 * 2.0 * 4 * 16 * 5);

  const SpeedResult& decode = report.results[1];
  EXPECT_TRUE(decode.decode);
  EXPECT_EQ(decode.tokens, 5);
  // Positions 3 to 7 see 4 to 8 tokens, 6 on average; two of three layers have a cache of 2 x 32 halves a token.
  EXPECT_DOUBLE_EQ(decode.kv_bytes, 2 * 2 * 32 * 2 * 6.0);
  EXPECT_DOUBLE_EQ(decode.float_multiply_adds, static_cast<double>(kMatrices) + 2 * 2.0 * 4 * 16 * 6);
  EXPECT_EQ(decode.int8_multiply_adds, 0);
  EXPECT_GT(decode.memory_seconds, 0);
  EXPECT_GT(decode.compute_seconds, 0);
  EXPECT_GT(report.ceilings.working_set, decode.kv_bytes);
}

TEST(Speed, IntegerKernelsCountAsSuch) {
  ThreadPool pool(1);
  const auto model = Model::random(small_config(), DType::kQ8_0, pool, 1);
  SpeedOptions options;
  options.prompts = {2};
  options.generated = 1;
  options.runs = 1;
  const SpeedReport report = measure_speed(*model, options, no_progress(), nullptr);
  EXPECT_EQ(report.results[1].int8_multiply_adds, kMatrices);
  EXPECT_EQ(report.results[0].int8_multiply_adds, kMatrices - kOutput / 2);
  EXPECT_GT(report.ceilings.int8, 0);
}

TEST(Speed, RefusesWhatCannotBeMeasured) {
  ThreadPool pool(1);
  const auto model = Model::random(small_config(), DType::kF32, pool, 1);
  SpeedOptions options;
  options.prompts = {};
  options.generated = 0;
  EXPECT_THROW(measure_speed(*model, options, no_progress(), nullptr), Error);
  options.prompts = {0};
  EXPECT_THROW(measure_speed(*model, options, no_progress(), nullptr), Error);
  options.prompts = {4};
  options.runs = 0;
  EXPECT_THROW(measure_speed(*model, options, no_progress(), nullptr), Error);
}

TEST(Speed, StopsWhenCancelled) {
  ThreadPool pool(1);
  const auto model = Model::random(small_config(), DType::kF32, pool, 1);
  const CancelFlag cancelled{true};
  EXPECT_THROW(measure_speed(*model, {}, no_progress(), &cancelled), Interrupted);
}

}  // namespace
}  // namespace pare
