#include "model/candidates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/generate.h"
#include "model/linear.h"
#include "model/model.h"
#include "refusal.h"

namespace pare {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<TokenLogit> picked(const std::vector<float>& logits, int64_t count) {
  std::vector<TokenLogit> found;
  pick_candidates(logits, count, found);
  return found;
}

TEST(Candidates, AreTheLargestByToken) {
  const std::vector<float> logits{1, 5, -2, 5, 3, 0};
  EXPECT_EQ(picked(logits, 3), (std::vector<TokenLogit>{{1, 5}, {3, 5}, {4, 3}}));
  EXPECT_EQ(picked(logits, 1), (std::vector<TokenLogit>{{1, 5}, {3, 5}}));  // equals count
  EXPECT_EQ(picked(logits, 0).size(), 6u);
  EXPECT_EQ(picked(logits, 6).size(), 6u);
  EXPECT_EQ(picked(logits, int64_t{1} << 60).size(), 6u);
  EXPECT_EQ(picked({-kInfinity, 1, kInfinity}, 1), (std::vector<TokenLogit>{{2, kInfinity}}));
  EXPECT_TRUE(picked({}, 2).empty());
}

TEST(Candidates, AreNanWhereLogitsAre) {
  for (int64_t count : {0, 1, 2, 4}) {
    for (const auto& logits : {std::vector<float>{kNan, 1, 2, 3}, {3, 2, kNan, 1}}) {
      const auto found = picked(logits, count);
      ASSERT_EQ(found.size(), 1u);
      EXPECT_TRUE(std::isnan(found[0].logit));
    }
  }
}

/// An output matrix and what is found in it.
class Search {
 public:
  Search(int64_t rows, int64_t columns, DType type, const std::vector<float>& weights, int threads)
      : pool_(threads), store_(pool_), input_(threads), multiplier_(pool_), search_(pool_) {
    WeightTensor tensor;
    tensor.name = "output";
    tensor.type = type;
    tensor.shape = Shape{rows, columns};
    tensor.make = [&, type] {
      std::vector<std::byte> bytes(static_cast<size_t>(info(type).bytes(rows * columns)));
      info(type).encode(weights.data(), bytes.data(), rows * columns);
      return bytes;
    };
    group_.linears.push_back({store_.output(tensor), {}});
  }
  std::vector<TokenLogit> find(const std::vector<float>& x, int64_t count) {
    std::vector<TokenLogit> found;
    input_.set(x.data(), 1, static_cast<int64_t>(x.size()));
    search_.find(group_, input_, multiplier_, count, found);
    return found;
  }
  std::vector<float> all(const std::vector<float>& x) {
    std::vector<float> logits(static_cast<size_t>(group_.linears[0].outputs()));
    float* const to[] = {logits.data()};
    input_.set(x.data(), 1, static_cast<int64_t>(x.size()));
    multiplier_.run(group_, input_, to);
    return logits;
  }
  int64_t computed() const { return search_.computed(); }

 private:
  ThreadPool pool_;
  WeightStore store_;
  LinearInput input_;
  Multiplier multiplier_;
  CandidateSearch search_;
  LinearGroup group_;
};

std::vector<float> normal(Random& random, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(random.normal());
  return values;
}

TEST(CandidateSearch, FindsWhatAllLogitsWouldGive) {
  Random random(3);
  const int64_t rows = 5003, columns = 256;
  const auto weights = normal(random, rows * columns);
  for (DType type : {DType::kQ6_K, DType::kQ8_0, DType::kQ4_0, DType::kF16}) {
    for (int threads : {1, 5}) {
      Search search(rows, columns, type, weights, threads);
      for (int round = 0; round < 4; ++round) {
        const auto x = normal(random, columns);
        const auto logits = search.all(x);
        for (int64_t count : {1, 7, 40, 0}) EXPECT_EQ(search.find(x, count), picked(logits, count)) << info(type).name;
      }
    }
  }
}

TEST(CandidateSearch, ComputesFewRows) {
  Random random(4);
  const int64_t rows = 8000, columns = 256;
  const auto weights = normal(random, rows * columns);
  for (DType type : {DType::kQ6_K, DType::kQ8_0}) {
    Search search(rows, columns, type, weights, 2);
    const auto x = normal(random, columns);
    search.find(x, 1);
    EXPECT_GE(search.computed(), 16);
    EXPECT_LE(search.computed(), rows / 10) << info(type).name;
    search.find(x, 0);
    EXPECT_EQ(search.computed(), rows);
  }
}

// All rows the same: no bound excludes any, all are candidates, and the next token does not try again.
TEST(CandidateSearch, GivesUpWhereNothingIsExcluded) {
  Random random(5);
  const int64_t rows = 2000, columns = 256;
  const auto row = normal(random, columns);
  std::vector<float> weights;
  for (int64_t i = 0; i < rows; ++i) weights.insert(weights.end(), row.begin(), row.end());
  Search search(rows, columns, DType::kQ6_K, weights, 2);
  for (int round = 0; round < 6; ++round) {
    const auto x = normal(random, columns);
    EXPECT_EQ(search.find(x, 1), picked(search.all(x), 1));
    EXPECT_GE(search.computed(), rows);
  }
}

TEST(CandidateSearch, ShowsWhatIsNoNumber) {
  Random random(6);
  const int64_t rows = 3000, columns = 256;
  auto weights = normal(random, rows * columns);
  for (DType type : {DType::kQ6_K, DType::kQ8_0}) {
    Search search(rows, columns, type, weights, 2);
    auto x = normal(random, columns);
    x[17] = kNan;
    const auto found = search.find(x, 1);
    ASSERT_FALSE(found.empty());
    for (const TokenLogit& candidate : found) EXPECT_TRUE(std::isnan(candidate.logit));
  }
}

ModelConfig config_of(int32_t vocabulary) {
  ModelConfig config;
  config.family = "llama";
  config.hidden = 256;
  config.vocabulary = vocabulary;
  config.context = 128;
  LayerConfig layer;
  layer.attention = AttentionConfig{};
  layer.attention->heads = 4;
  layer.attention->kv_heads = 2;
  layer.attention->head_dim = 64;
  layer.attention->scale = 1 / std::sqrt(64.0f);
  layer.attention->rope.dims = 64;
  layer.mlp = MlpConfig{};
  layer.mlp->width = 256;
  config.layers.assign(2, layer);
  return config;
}

TEST(Generate, ChoosesAsFromAllLogits) {
  for (const bool tied : {true, false}) {
    ModelConfig config = config_of(6000);
    config.tied_embedding = tied;
    ThreadPool pool(3);
    for (DType type : {DType::kQ6_K, DType::kQ8_0, DType::kF32}) {
      const auto model = Model::random(config, type, pool, 3);
      for (const SamplerOptions& sampling :
           {SamplerOptions{.temperature = 0}, SamplerOptions{.temperature = 1.5f, .top_p = 1, .min_p = 0, .seed = 4},
            SamplerOptions{.temperature = 0, .repetition_penalty = 1.5f},
            SamplerOptions{.temperature = 1, .repetition_penalty = 0.9f, .seed = 4},
            SamplerOptions{.temperature = 2, .top_k = 0, .top_p = 1, .min_p = 0, .seed = 4}}) {
        KvCache cache(config, 1, 128, DType::kF32);
        const std::vector<int32_t> prompt{1, 2, 3};
        GenerateOptions options;
        options.sampler = sampling;
        options.max_tokens = 40;
        options.ignore_end = true;
        const auto generated = generate(*model, cache, 0, prompt, options, {}).tokens;
        std::vector<int32_t> expected;
        Sampler sampler(sampling);
        for (int32_t token : prompt) sampler.saw(token);
        cache.clear(0);
        std::vector<float> logits(static_cast<size_t>(config.vocabulary));
        Batch batch;
        batch.add_span(prompt, 0, 0, false);
        while (expected.size() < 40) {
          model->forward(batch, cache, logits);
          expected.push_back(sampler.sample(logits));
          batch.clear();
          batch.add(expected.back(), 0, static_cast<int32_t>(cache.tokens(0)), true);
        }
        EXPECT_EQ(generated, expected) << info(type).name << " tied " << tied;
      }
    }
  }
}

TEST(Model, CandidatesAreOfOneRow) {
  const ModelConfig config = config_of(300);
  ThreadPool pool(1);
  const auto model = Model::random(config, DType::kF32, pool, 3);
  KvCache cache(config, 1, 8, DType::kF32);
  std::vector<TokenLogit> found;
  Batch batch;
  batch.add_span(std::vector<int32_t>{1, 2}, 0, 0, true);
  EXPECT_EQ(test::refusal_of([&] { model->forward(batch, cache, 1, found); }), "candidates of 2 rows, expected one");
  batch.clear();
  batch.add_span(std::vector<int32_t>{1, 2}, 0, 0, false);
  EXPECT_EQ(test::refusal_of([&] { model->forward(batch, cache, -1, found); }), "-1 candidates, expected 0 or more");
  model->forward(batch, cache, 0, found);
  EXPECT_EQ(found.size(), 300u);
}

}  // namespace
}  // namespace pare
