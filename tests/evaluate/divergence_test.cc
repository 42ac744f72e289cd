#include "evaluate/divergence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/random.h"

namespace pare {
namespace {

using testing::HasSubstr;

std::vector<float> random_logits(int64_t count, double spread, uint64_t seed) {
  Random random(seed);
  std::vector<float> logits(static_cast<size_t>(count));
  for (float& x : logits) x = static_cast<float>(5 + spread * random.normal());
  return logits;
}

std::vector<double> softmax(const std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  for (const float x : logits) p.push_back(std::exp(double{x} - largest));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

/// KL(a || b) by its definition.
double divergence_of(const std::vector<double>& a, const std::vector<double>& b) {
  double kl = 0;
  for (size_t i = 0; i < a.size(); ++i) kl += a[i] * std::log(a[i] / b[i]);
  return kl;
}

/// The likeliest `kept` of `a` as they are, the rest of both as one outcome.
double divergence_of_top(const std::vector<double>& a, const std::vector<double>& b, int64_t kept) {
  std::vector<size_t> order(a.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return a[i] > a[j]; });
  double kl = 0, rest_a = 0, rest_b = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const size_t i = order[rank];
    if (rank < static_cast<size_t>(kept)) {
      kl += a[i] * std::log(a[i] / b[i]);
    } else {
      rest_a += a[i], rest_b += b[i];
    }
  }
  return kl + rest_a * std::log(rest_a / rest_b);
}

constexpr int64_t kPlenty = int64_t{1} << 30;

TEST(DistributionStore, ComparesAsTheDefinitionSays) {
  for (const int64_t vocabulary : {5, 37, 512, 8192}) {
    for (const double spread : {0.1, 1.0, 4.0}) {
      const auto base = random_logits(vocabulary, spread, 1), other = random_logits(vocabulary, spread, 2);
      std::vector<float> scratch(static_cast<size_t>(vocabulary));
      DistributionStore store(3, vocabulary, kPlenty);
      EXPECT_EQ(store.kept(), vocabulary);
      store.put(0, other.data(), scratch.data());
      const double log_sum = store.put(1, base.data(), scratch.data());
      const auto p = softmax(base), q = softmax(other);
      const double expected = divergence_of(p, q);
      const auto result = store.compare(1, other.data(), scratch.data());
      EXPECT_NEAR(result.kl, expected, 1e-6 + 2e-4 * expected) << vocabulary << " " << spread;
      const auto top = static_cast<size_t>(std::max_element(base.begin(), base.end()) - base.begin());
      EXPECT_NEAR(log_sum, double{base[top]} - std::log(p[top]), 1e-6);
      EXPECT_NEAR(result.log_sum, double{other[0]} - std::log(q[0]), 1e-5);
      const auto other_top = static_cast<size_t>(std::max_element(other.begin(), other.end()) - other.begin());
      EXPECT_EQ(result.same_top, top == other_top);
    }
  }
}

TEST(DistributionStore, FindsNoDistanceFromItself) {
  for (const double spread : {0.01, 1.0, 3.0, 10.0}) {
    const auto logits = random_logits(8192, spread, 3);
    std::vector<float> scratch(logits.size());
    DistributionStore store(1, 8192, kPlenty);
    store.put(0, logits.data(), scratch.data());
    const auto result = store.compare(0, logits.data(), scratch.data());
    EXPECT_LT(result.kl, 1e-6) << spread;
    EXPECT_TRUE(result.same_top);
  }
}

TEST(DistributionStore, IgnoresWhatIsAddedToAllLogits) {
  const auto base = random_logits(300, 2, 4);
  auto shifted = base;
  for (float& x : shifted) x += 100;
  std::vector<float> scratch(base.size());
  DistributionStore store(1, 300, kPlenty);
  store.put(0, base.data(), scratch.data());
  EXPECT_LT(store.compare(0, shifted.data(), scratch.data()).kl, 1e-6);
}

TEST(DistributionStore, KeepsFewerEntriesInLessMemory) {
  constexpr int64_t kVocabulary = 4096, kPositions = 8, kBudget = 8 * 1024;
  DistributionStore store(kPositions, kVocabulary, kBudget);
  EXPECT_LE(store.bytes(), kBudget);
  EXPECT_GE(store.bytes(), kBudget * 9 / 10);
  EXPECT_LT(store.kept(), kVocabulary);
  std::vector<float> scratch(kVocabulary);
  for (int64_t i = 0; i < kPositions; ++i) {
    const auto base = random_logits(kVocabulary, 3, 10 + static_cast<uint64_t>(i));
    auto other = random_logits(kVocabulary, 0.3, 50);
    for (size_t k = 0; k < base.size(); ++k) other[k] += base[k];
    store.put(i, base.data(), scratch.data());
    const auto p = softmax(base), q = softmax(other);
    const double expected = divergence_of_top(p, q, store.kept()), whole = divergence_of(p, q);
    const double found = store.compare(i, other.data(), scratch.data()).kl;
    EXPECT_NEAR(found, expected, 1e-6 + 1e-3 * expected);
    EXPECT_LT(found, whole);
    EXPECT_GT(found, 0.5 * whole);
    EXPECT_LT(store.compare(i, base.data(), scratch.data()).kl, 1e-6);
  }
}

TEST(DistributionStore, BearsTokensThatCannotCome) {
  std::vector<float> base(64, -1e6f), other(64, -1e6f), scratch(64);
  base[3] = 2, base[4] = 1, other[3] = 1, other[4] = 1;
  DistributionStore store(1, 64, kPlenty);
  store.put(0, base.data(), scratch.data());
  const double p = 1 / (1 + std::exp(-1.0));
  EXPECT_NEAR(store.compare(0, other.data(), scratch.data()).kl, p * std::log(2 * p) + (1 - p) * std::log(2 * (1 - p)),
              1e-6);
}

TEST(DistributionStore, RefusesNumbersThatAreNone) {
  std::vector<float> logits(64, 1.0f), scratch(64);
  DistributionStore store(1, 64, kPlenty);
  store.put(0, logits.data(), scratch.data());
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    logits[5] = bad;
    EXPECT_THROW(store.put(0, logits.data(), scratch.data()), Error);
    EXPECT_THROW(store.compare(0, logits.data(), scratch.data()), Error);
  }
  try {
    DistributionStore(1000, 64, 4000);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("use fewer tokens"));
  }
}

ModelConfig config_with(int64_t vocabulary, int layers) {
  ModelConfig config;
  config.family = "llama";
  config.hidden = 32;
  config.vocabulary = vocabulary;
  config.context = 64;
  AttentionConfig attention;
  attention.heads = 4, attention.kv_heads = 2, attention.head_dim = 8;
  attention.scale = 1 / std::sqrt(8.0f);
  attention.rope.dims = 8;
  MlpConfig mlp;
  mlp.width = 64;
  config.layers.assign(static_cast<size_t>(layers), {attention, mlp});
  return config;
}

class DivergenceTest : public testing::Test {
 protected:
  DivergenceTest() : pool_(2), base_(Model::random(config_with(300, 2), DType::kF32, pool_, 1)) {
    Random random(5);
    for (int w = 0; w < 9; ++w) {
      TextWindows::Window window;
      for (int i = 0; i < 40 + w; ++i) window.tokens.push_back(static_cast<int32_t>(random.below(300)));
      window.first = 1 + w, window.last = 40 + w;
      windows_.windows.push_back(window);
    }
  }
  Reference reference(int64_t budget = kPlenty) {
    return Reference::measure(*base_, windows_, DType::kF32, no_progress(), nullptr, budget);
  }
  std::vector<std::vector<float>> logits_of(Model& model) {
    std::vector<std::vector<float>> all;
    score_windows(
        model, windows_, DType::kF32,
        [&](int64_t, int32_t, std::span<const float> logits) { all.emplace_back(logits.begin(), logits.end()); },
        no_progress(), nullptr);
    return all;
  }

  ThreadPool pool_;
  std::unique_ptr<Model> base_;
  TextWindows windows_;
};

TEST_F(DivergenceTest, OfAModelFromItselfIsNothing) {
  const DivergenceResult result = divergence(*base_, reference(), DType::kF32, no_progress(), nullptr);
  EXPECT_LT(result.mean_kl, 1e-6);
  EXPECT_LT(result.p99_kl, 1e-6);
  EXPECT_EQ(result.top1_agreement, 1);
  EXPECT_EQ(result.quality(), 1);
  EXPECT_EQ(result.model.tokens, windows_.counted());
}

TEST_F(DivergenceTest, OfAnotherModelIsWhatItsLogitsSay) {
  const auto other = Model::random(config_with(300, 3), DType::kF32, pool_, 2);
  const auto a = logits_of(*base_), b = logits_of(*other);
  std::vector<double> kl;
  double same = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    kl.push_back(divergence_of(softmax(a[i]), softmax(b[i])));
    same += std::max_element(a[i].begin(), a[i].end()) - a[i].begin() ==
            std::max_element(b[i].begin(), b[i].end()) - b[i].begin();
  }
  const auto count = static_cast<double>(kl.size());
  const DivergenceResult result = divergence(*other, reference(), DType::kF32, no_progress(), nullptr);
  const double mean = std::accumulate(kl.begin(), kl.end(), 0.0) / count;
  EXPECT_NEAR(result.mean_kl, mean, 1e-3 * mean);
  std::sort(kl.begin(), kl.end());
  const double p99 = kl[static_cast<size_t>(std::ceil(0.99 * count)) - 1];
  EXPECT_NEAR(result.p99_kl, p99, 1e-3 * p99);
  EXPECT_DOUBLE_EQ(result.top1_agreement, same / count);
  const PerplexityResult alone = perplexity(*other, windows_, DType::kF32, no_progress(), nullptr);
  EXPECT_NEAR(result.model.perplexity, alone.perplexity, 1e-5 * alone.perplexity);
  EXPECT_NEAR(result.quality(), result.base.perplexity / alone.perplexity, 1e-5);
}

TEST_F(DivergenceTest, InLittleMemoryIsCloseAndNeverMore) {
  const auto other = Model::random(config_with(300, 2), DType::kF32, pool_, 9);
  const DivergenceResult whole = divergence(*other, reference(), DType::kF32, no_progress(), nullptr);
  const int64_t budget = windows_.counted() * 550;  // of 600 and a few bytes a position
  const DivergenceResult part = divergence(*other, reference(budget), DType::kF32, no_progress(), nullptr);
  EXPECT_LE(part.mean_kl, whole.mean_kl * (1 + 1e-3));
  EXPECT_GT(part.mean_kl, whole.mean_kl * 0.5);
  EXPECT_EQ(part.top1_agreement, whole.top1_agreement);
  EXPECT_EQ(part.model.perplexity, whole.model.perplexity);
}

TEST_F(DivergenceTest, RefusesAnotherVocabulary) {
  const auto other = Model::random(config_with(301, 2), DType::kF32, pool_, 1);
  EXPECT_THROW(divergence(*other, reference(), DType::kF32, no_progress(), nullptr), Error);
}

TEST_F(DivergenceTest, DoesNotDependOnThreads) {
  const auto other = Model::random(config_with(300, 3), DType::kF32, pool_, 2);
  ThreadPool one(1);
  const auto alone = Model::random(config_with(300, 3), DType::kF32, one, 2);
  const Reference base = reference();
  const DivergenceResult a = divergence(*other, base, DType::kF32, no_progress(), nullptr);
  const DivergenceResult b = divergence(*alone, base, DType::kF32, no_progress(), nullptr);
  EXPECT_EQ(a.mean_kl, b.mean_kl);
  EXPECT_EQ(a.model.perplexity, b.model.perplexity);
}

}  // namespace
}  // namespace pare
