#include "model/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>

#include "base/error.h"
#include "model/generate.h"
#include "model/rope.h"
#include "refusal.h"

namespace pare {
namespace {

using test::refusal_of;

ModelConfig small_config() {
  ModelConfig config;
  config.family = "llama";
  config.hidden = 128;
  config.vocabulary = 300;
  config.context = 512;
  LayerConfig layer;
  layer.attention = AttentionConfig{};
  layer.attention->heads = 4;
  layer.attention->kv_heads = 2;
  layer.attention->head_dim = 32;
  layer.attention->scale = 1 / std::sqrt(32.0f);
  layer.attention->rope.dims = 32;
  layer.mlp = MlpConfig{};
  layer.mlp->width = 192;
  config.layers.assign(4, layer);
  return config;
}

/// Attention and little beside it.
ModelConfig attention_config() {
  ModelConfig config = small_config();
  config.vocabulary = 20;
  config.layers.resize(1);
  config.layers[0].mlp.reset();
  return config;
}

std::vector<int32_t> some_tokens(int64_t count, uint64_t seed, int64_t vocabulary) {
  Random random(seed);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary))));
  return ids;
}

/// Logits of every position of one sequence, fed `step` tokens at a time.
std::vector<float> all_logits(Model& model, std::span<const int32_t> ids, int64_t step, DType kv) {
  KvCache cache(model.config(), 1, static_cast<int64_t>(ids.size()), kv);
  std::vector<float> logits(ids.size() * static_cast<size_t>(model.config().vocabulary));
  for (size_t at = 0; at < ids.size(); at += static_cast<size_t>(step)) {
    Batch batch;
    batch.add_span(ids.subspan(at, std::min(static_cast<size_t>(step), ids.size() - at)), 0, static_cast<int32_t>(at),
                   true);
    model.forward(batch, cache, std::span(logits).subspan(at * static_cast<size_t>(model.config().vocabulary)));
  }
  return logits;
}

class ModelTypes : public testing::TestWithParam<DType> {};

TEST_P(ModelTypes, RowsDoNotDependOnTheirCompany) {
  const ModelConfig config = small_config();
  ThreadPool one(1), three(3);
  const auto alone = Model::random(config, GetParam(), one, 5), threaded = Model::random(config, GetParam(), three, 5);
  for (DType kv : {DType::kF32, DType::kF16}) {
    const auto a = some_tokens(150, 1, config.vocabulary), b = some_tokens(71, 2, config.vocabulary);
    const auto expected_a = all_logits(*alone, a, 1, kv), expected_b = all_logits(*alone, b, 1, kv);
    EXPECT_EQ(all_logits(*alone, a, 150, kv), expected_a);
    EXPECT_EQ(all_logits(*threaded, a, 64, kv), expected_a);
    KvCache cache(config, 2, 200, kv);
    Batch batch;
    batch.add_span(b, 1, 0, true);
    batch.add_span(a, 0, 0, true);
    std::vector<float> together((a.size() + b.size()) * 300);
    threaded->forward(batch, cache, together);
    EXPECT_TRUE(std::equal(expected_b.begin(), expected_b.end(), together.begin()));
    EXPECT_TRUE(
        std::equal(expected_a.begin(), expected_a.end(), together.begin() + static_cast<ptrdiff_t>(b.size() * 300)));
  }
}

INSTANTIATE_TEST_SUITE_P(All, ModelTypes,
                         testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0),
                         [](const auto& test) -> std::string { return pare::info(test.param).name; });

TEST(Model, MoreThreadsThanThereIsWorkFor) {
  const ModelConfig config = small_config();
  ThreadPool one(1), many(64);  // of a product of 128 rows no thread gets four
  const auto ids = some_tokens(300, 7, config.vocabulary);
  const auto alone = Model::random(config, DType::kF32, one, 5), crowded = Model::random(config, DType::kF32, many, 5);
  EXPECT_EQ(all_logits(*crowded, ids, 300, DType::kF32), all_logits(*alone, ids, 300, DType::kF32));
}

TEST(Model, ContextsSharedByThreadsGiveTheSame) {
  ModelConfig config = attention_config();
  config.context = 2 * kernels::kKvSpanTokens;
  AttentionConfig& attention = *config.layers[0].attention;
  attention.heads = 8;
  // Heads that share keys are fewer than threads for a single row, so threads share those, too.
  ThreadPool one(1), five(5);
  const auto ids = some_tokens(kernels::kKvSpanTokens + 40, 7, config.vocabulary);
  const auto same = [&](DType kv) {
    const auto alone = Model::random(config, DType::kF32, one, 5), shared = Model::random(config, DType::kF32, five, 5);
    const auto expected = all_logits(*alone, ids, static_cast<int64_t>(ids.size()), kv);
    EXPECT_EQ(all_logits(*shared, ids, 1, kv), expected);
    EXPECT_EQ(all_logits(*shared, ids, 7, kv), expected);
  };
  for (DType kv : kernels::kv_types()) same(kv);
  attention.kind = AttentionKind::kDifferential;
  for (const auto& [pairing, kv_pairs] :
       {std::pair(HeadPairing::kNeighbours, false), {HeadPairing::kNeighbours, true}, {HeadPairing::kHalves, true}}) {
    SCOPED_TRACE(testing::Message() << "KV pairs: " << kv_pairs << ", halves: " << (pairing == HeadPairing::kHalves));
    attention.differential.kv_pairs = kv_pairs;
    attention.differential.pairing = pairing;
    same(DType::kF16);
  }
}

// Threads take parts of groups of heads where groups are no multiple of them.
TEST(Model, HeadsSharedByAnyNumberOfThreadsGiveTheSame) {
  ModelConfig config = attention_config();
  AttentionConfig& attention = *config.layers[0].attention;
  const auto ids = some_tokens(70, 7, config.vocabulary);
  for (const auto& [kind, kv_heads] : {std::pair(AttentionKind::kSoftmax, 5), {AttentionKind::kDifferential, 6}}) {
    attention.kind = kind;
    attention.kv_heads = kv_heads;
    attention.heads = 8 * kv_heads;
    ThreadPool one(1);
    const auto expected = all_logits(*Model::random(config, DType::kF32, one, 5), ids, 70, DType::kF16);
    for (int threads : {2, 3, 4, 7, 16}) {
      ThreadPool pool(threads);
      EXPECT_EQ(all_logits(*Model::random(config, DType::kF32, pool, 5), ids, 1, DType::kF16), expected)
          << threads << " threads";
    }
  }
}

// Longer ones than kMaxChunkRows in chunks, and products of many rows part by part.
TEST(Model, LongBatchesGoThroughInChunks) {
  ModelConfig config = small_config();
  config.hidden = 256;
  config.context = 2000;
  config.layers.resize(2);
  for (LayerConfig& layer : config.layers) {
    layer.attention->heads = 8;
    layer.mlp->width = 256;
  }
  ThreadPool one(1), three(3);
  for (DType type : {DType::kF32, DType::kQ8_0, DType::kTQ2_0}) {
    SCOPED_TRACE(info(type).name);
    const auto model = Model::random(config, type, three, 1), alone = Model::random(config, type, one, 1);
    const auto ids = some_tokens(kMaxChunkRows + 201, 3, config.vocabulary);
    const auto expected = all_logits(*alone, ids, 100, DType::kF32);
    for (int64_t rows : {kMaxChunkRows + 201, int64_t{449}, int64_t{193}})
      EXPECT_EQ(all_logits(*model, ids, rows, DType::kF32), expected) << rows << " rows at a time";
  }
}

TEST(Model, DroppedPartsTakeNoCache) {
  ModelConfig config = small_config();
  config.layers[1].attention.reset();
  config.layers[2].mlp.reset();
  config.layers[3] = {};
  ThreadPool pool(1);
  const auto model = Model::random(config, DType::kF32, pool, 1);
  KvCache cache(config, 1, 100, DType::kF16);
  Batch batch;
  batch.add_span(some_tokens(10, 1, 300), 0, 0, false);
  std::vector<float> logits(300);
  model->forward(batch, cache, logits);
  EXPECT_EQ(cache.length(0, 0), 10);
  EXPECT_EQ(cache.length(0, 1), 0);
  EXPECT_EQ(cache.length(0, 2), 10);
  EXPECT_EQ(cache.length(0, 3), 0);
  const int64_t page = 2 * 2 * 32 * 64 * 2;  // keys and values of 2 heads of 32, 64 tokens in f16
  EXPECT_EQ(cache.allocated_bytes(), 2 * page);
  EXPECT_EQ(cache.bytes_per_token(), 2 * page / 64);
}

TEST(Model, ForgettingTokensIsAsIfTheyNeverCame) {
  ThreadPool pool(1);
  const auto model = Model::random(small_config(), DType::kF16, pool, 9);
  const auto ids = some_tokens(130, 4, 300);
  KvCache cache(model->config(), 1, 200, DType::kF16);
  std::vector<float> first(300), again(300);
  Batch batch;
  batch.add_span(ids, 0, 0, false);
  model->forward(batch, cache, first);
  cache.truncate(0, 60);
  EXPECT_EQ(cache.tokens(0), 60);
  batch.clear();
  batch.add_span(std::span(ids).subspan(60), 0, 60, false);
  model->forward(batch, cache, again);
  EXPECT_EQ(first, again);
}

// Means of values follow what is stored: new tokens in place of forgotten ones have means of their own.
TEST(KvCache, MeansOfPagesAreMadeAgainAfterTokensAreForgotten) {
  const ModelConfig config = small_config();
  KvCache cache(config, 1, 500, DType::kF32);
  const auto width = static_cast<size_t>(config.layers[0].attention->head_dim);
  const auto store = [&](int64_t first, int64_t last, float value) {
    const std::vector<float> vector(width, value);
    cache.extend(0, 0, last - first);
    for (int64_t i = first; i < last; ++i) cache.store(0, 0, 0, i, vector.data(), vector.data());
    cache.update_means(0, 0);
  };
  const auto mean = [&](size_t page) { return cache.value_means(0, 0, 0)[page * ((width + 15) / 16 * 16)]; };
  store(0, 130, 1);
  EXPECT_EQ(mean(0), 1);
  EXPECT_EQ(mean(1), 1);
  cache.truncate(0, 96);
  store(96, 100, 3);
  store(100, 128, 3);
  EXPECT_EQ(mean(0), 1);
  EXPECT_EQ(mean(1), 2);
  cache.clear(0);
  store(0, 64, 5);
  EXPECT_EQ(mean(0), 5);
}

TEST(KvCache, PagesOfForgottenTokensAreUsedAgain) {
  KvCache cache(small_config(), 2, 500, DType::kQ8_0);
  cache.extend(0, 1, 300);
  const int64_t held = cache.allocated_bytes();
  EXPECT_GE(held, 300 * cache.bytes_per_token() / 4);
  cache.clear(0);
  cache.extend(1, 1, 300);
  EXPECT_EQ(cache.allocated_bytes(), held);
}

TEST(Model, RefusesBatchesThatMakeNoSense) {
  ThreadPool pool(1);
  const auto model = Model::random(small_config(), DType::kF32, pool, 1);
  KvCache cache(model->config(), 2, 8, DType::kF32);
  std::vector<float> logits(300);
  const auto attempt = [&](int token, int sequence, int position) {
    Batch batch;
    batch.add(token, sequence, position, true);
    return refusal_of([&] { model->forward(batch, cache, logits); });
  };
  EXPECT_EQ(attempt(300, 0, 0), "token 300 is outside the vocabulary of 300");
  EXPECT_EQ(attempt(-1, 0, 0), "token -1 is outside the vocabulary of 300");
  EXPECT_EQ(attempt(1, 2, 0), "sequence 2: the cache has 2");
  EXPECT_EQ(attempt(1, 0, 1), "sequence 0: position 1, expected 0");
  Batch apart;
  apart.add(1, 0, 0, false);
  apart.add(1, 1, 0, false);
  apart.add(1, 0, 1, false);
  EXPECT_EQ(refusal_of([&] { model->forward(apart, cache, logits); }), "the rows of sequence 0 do not lie together");
  Batch longer;
  longer.add_span(some_tokens(9, 1, 300), 0, 0, false);
  EXPECT_EQ(refusal_of([&] { model->forward(longer, cache, logits); }),
            "sequence 0: longer than the context of 8 tokens");
  EXPECT_EQ(cache.tokens(0), 0);
}

class Recorder : public Observer {
 public:
  bool wants(ActivationSite site, int) const override {
    return site == ActivationSite::kBlockIn || site == ActivationSite::kAttentionStreamOut ||
           site == ActivationSite::kMlpStreamIn || site == ActivationSite::kBlockOut;
  }
  void observe(ActivationSite site, int layer, const Batch& batch, std::span<const float> values,
               int64_t width) override {
    EXPECT_EQ(static_cast<int64_t>(values.size()), batch.rows() * width);
    seen[{layer, site}].assign(values.begin(), values.end());
  }
  std::map<std::pair<int, ActivationSite>, std::vector<float>> seen;
};

TEST(Observer, SeesTheResidualStreamWhereItSays) {
  ModelConfig config = small_config();
  config.layers[1].attention.reset();
  ThreadPool pool(2);
  const auto model = Model::random(config, DType::kF32, pool, 2);
  KvCache cache(config, 1, 32, DType::kF32);
  Batch batch;
  batch.add_span(some_tokens(20, 8, 300), 0, 0, false);
  std::vector<float> logits(300), plain(300);
  Recorder recorder;
  model->forward(batch, cache, logits, &recorder);
  cache.clear(0);
  model->forward(batch, cache, plain);
  EXPECT_EQ(logits, plain);  // looking changes nothing
  using enum ActivationSite;
  EXPECT_EQ((recorder.seen[{0, kAttentionStreamOut}]), (recorder.seen[{0, kMlpStreamIn}]));
  EXPECT_EQ((recorder.seen[{0, kBlockOut}]), (recorder.seen[{1, kBlockIn}]));
  EXPECT_EQ((recorder.seen[{1, kBlockIn}]), (recorder.seen[{1, kMlpStreamIn}]));  // no attention between them
  EXPECT_FALSE(recorder.seen.contains({1, kAttentionStreamOut}));
  EXPECT_NE((recorder.seen[{0, kBlockIn}]), (recorder.seen[{0, kMlpStreamIn}]));
}

TEST(Generate, StopsWhereItShould) {
  ThreadPool pool(1);
  const auto model = Model::random(small_config(), DType::kF32, pool, 3);
  KvCache cache(model->config(), 1, 20, DType::kF32);
  GenerateOptions options;
  options.sampler.temperature = 0;
  options.max_tokens = 5;
  const std::vector<int32_t> prompt{1, 2, 3};
  const auto five = generate(*model, cache, 0, prompt, options, {});
  EXPECT_EQ(five.tokens.size(), 5u);
  EXPECT_EQ(five.reason, StopReason::kLength);
  const auto ended = generate(*model, cache, 0, prompt, options, {five.tokens[0]});
  EXPECT_TRUE(ended.tokens.empty());
  EXPECT_EQ(ended.reason, StopReason::kEnd);
  options.max_tokens = 1000;
  const auto full = generate(*model, cache, 0, prompt, options, {});
  EXPECT_EQ(full.reason, StopReason::kContext);
  EXPECT_EQ(full.tokens.size(), 18u);  // 17 fit the cache beside the prompt, and one more is predicted from them
  CancelFlag cancel = false;
  options.cancel = &cancel;
  const auto cancelled = generate(*model, cache, 0, prompt, options, {}, [&](int32_t) { cancel = true; });
  EXPECT_EQ(cancelled.reason, StopReason::kCancelled);
  EXPECT_EQ(cancelled.tokens.size(), 1u);
  EXPECT_EQ(refusal_of([&] { generate(*model, cache, 0, {}, options, {}); }),
            "an empty prompt: expected at least one token");
}

TEST(Rope, SineAndCosineAreThoseOfTheLibrary) {
  RopeFrequencies frequencies;
  frequencies.inverse = {1.0f, 0.37f, 0.001f, 3e-7f};
  std::vector<float> cos(4), sin(4);
  for (int64_t position : {0, 1, 2, 3, 100, 4095, 131071, 1000003}) {
    rope_row(frequencies, position, cos.data(), sin.data());
    for (size_t i = 0; i < 4; ++i) {
      const float angle = static_cast<float>(position) * frequencies.inverse[i];
      EXPECT_FLOAT_EQ(cos[i], static_cast<float>(std::cos(static_cast<double>(angle))));
      EXPECT_FLOAT_EQ(sin[i], static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
}

TEST(Sampler, GreedyTakesTheFirstLargest) {
  SamplerOptions options;
  options.temperature = 0;
  Sampler sampler(options);
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 3, 2}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{NAN, -1, NAN}), 1);
}

TEST(Sampler, FollowsTheDistributionItWasTold) {
  SamplerOptions options;
  options.temperature = 2;
  options.top_k = 3;
  options.top_p = 1;
  options.min_p = 0;
  Sampler sampler(options);
  const std::vector<float> logits{0, 2, 4, -9, 1};
  std::vector<int> counts(5);
  for (int i = 0; i < 20000; ++i) ++counts[static_cast<size_t>(sampler.sample(logits))];
  const double z = std::exp(0.5) + std::exp(1.0) + std::exp(2.0);
  EXPECT_NEAR(counts[2] / 20000.0, std::exp(2.0) / z, 0.015);
  EXPECT_NEAR(counts[1] / 20000.0, std::exp(1.0) / z, 0.015);
  EXPECT_NEAR(counts[4] / 20000.0, std::exp(0.5) / z, 0.015);
  EXPECT_EQ(counts[0] + counts[3], 0);
}

TEST(Sampler, TopPAndMinPCutTheTail) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};
  const auto possible = [&](float top_p, float min_p) {
    SamplerOptions options;
    options.temperature = 1;
    options.top_k = 0;
    options.top_p = top_p;
    options.min_p = min_p;
    Sampler sampler(options);
    int32_t most = 0;
    for (int i = 0; i < 2000; ++i) most = std::max(most, sampler.sample(logits));
    return most;
  };
  EXPECT_EQ(possible(1, 0), 3);
  EXPECT_EQ(possible(0.79f, 0), 1);
  EXPECT_EQ(possible(0.81f, 0), 2);
  EXPECT_EQ(possible(1, 0.25f), 2);
  EXPECT_EQ(possible(1, 0.5f), 1);
}

TEST(Sampler, PenaltyMovesAwayFromWhatWasSeen) {
  SamplerOptions options;
  options.temperature = 0;
  options.repetition_penalty = 2;
  Sampler sampler(options);
  EXPECT_EQ(sampler.sample(std::vector<float>{3, 2, -1}), 0);
  EXPECT_EQ(sampler.sample(std::vector<float>{3, 2, -1}), 1);  // 3 / 2 < 2
  EXPECT_NE(refusal_of([] { check_sampler_options({.temperature = -1}); }).find("temperature"), std::string::npos);
}

}  // namespace
}  // namespace pare
