#include "redundancy/choose.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "redundancy/attention_sparsity.h"
#include "redundancy/greedy.h"
#include "refusal.h"

namespace pare {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Kind = DropPart::Kind;

Redundancy scores(const std::vector<std::optional<double>>& attention, const std::vector<std::optional<double>>& mlp,
                  const std::vector<double>& block) {
  Redundancy redundancy;
  for (size_t i = 0; i < block.size(); ++i) {
    LayerImportance layer;
    layer.attention = attention[i], layer.mlp = mlp[i], layer.block = block[i];
    redundancy.layers.push_back(layer);
  }
  return redundancy;
}

// Layer 0 matters most, as in real models; ties in attention (1, 3) and across kinds (attention 4, MLP 2).
const Redundancy kScores = scores({0.9, 0.2, 0.5, 0.2, 0.3}, {0.8, 0.4, 0.3, 0.7, 0.6}, {0.95, 0.35, 0.25, 0.45, 0.5});

std::string refusal(const Redundancy& redundancy, const DropRequest& request) {
  return test::refusal_of([&] { choose_drops(redundancy, request); });
}

TEST(ChooseDrops, TakesTheLeastImportantFirst) {
  EXPECT_THAT(choose_drops(kScores, {.attention = 3}).drop_attention, ElementsAre(1, 3, 4));
  EXPECT_THAT(choose_drops(kScores, {.mlp = 2}).drop_mlp, ElementsAre(1, 2));
  EXPECT_THAT(choose_drops(kScores, {.mlp = 2}).drop_attention, IsEmpty());
  const Plan blocks = choose_drops(kScores, {.block = 2});
  EXPECT_THAT(blocks.drop_attention, ElementsAre(1, 2));
  EXPECT_EQ(blocks.drop_mlp, blocks.drop_attention);
  EXPECT_EQ(choose_drops(kScores, {}), Plan());
}

TEST(ChooseDrops, GivesTiesToTheLowerLayerAndToAttention) {
  EXPECT_THAT(choose_drops(kScores, {.attention = 1}).drop_attention, ElementsAre(1));
  const Plan three = choose_drops(kScores, {.joint = 3});  // 1 and 3 at 0.2, then attention 4 and MLP 2 at 0.3
  EXPECT_THAT(three.drop_attention, ElementsAre(1, 3, 4));
  EXPECT_THAT(three.drop_mlp, IsEmpty());
  EXPECT_THAT(choose_drops(kScores, {.joint = 4}).drop_mlp, ElementsAre(2));
}

TEST(ChooseDrops, ProtectsNoLayer) {
  EXPECT_THAT(choose_drops(kScores, {.attention = 5}).drop_attention, ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(choose_drops(kScores, {.joint = 10}).drop_mlp, ElementsAre(0, 1, 2, 3, 4));
}

TEST(ChooseDrops, LeavesOutWhatIsAbsent) {
  const Redundancy partly = scores({0.9, {}, 0.5, {}}, {{}, 0.1, 0.4, {}}, {0.9, 0.1, 0.45, 0});
  EXPECT_THAT(choose_drops(partly, {.attention = 1}).drop_attention, ElementsAre(2));
  const Plan block = choose_drops(partly, {.block = 1});  // layer 3 is empty: nothing of it can go
  EXPECT_THAT(block.drop_attention, IsEmpty());
  EXPECT_THAT(block.drop_mlp, ElementsAre(1));
  EXPECT_THAT(refusal(partly, {.attention = 3}), HasSubstr("cannot drop 3 of 2 attention parts"));
  EXPECT_THAT(refusal(partly, {.block = 4}), HasSubstr("cannot drop 4 of 3 block parts"));
  EXPECT_THAT(refusal(partly, {.joint = 5}), HasSubstr("cannot drop 5 of 4 attention or MLP parts"));
}

TEST(ChooseDrops, CarriesOutSeveralKindsOneAfterAnother) {
  const Plan plan = choose_drops(kScores, {.attention = 1, .mlp = 1, .block = 1});
  EXPECT_THAT(plan.drop_attention, ElementsAre(1, 2));  // block 2 first, then attention 1 of those left
  EXPECT_THAT(plan.drop_mlp, ElementsAre(1, 2));
}

TEST(ChooseDrops, RefusesNonsense) {
  EXPECT_THAT(refusal(kScores, {.attention = -1}), HasSubstr("cannot drop -1"));
  Redundancy bad = kScores;
  bad.layers[2].mlp = NAN;
  EXPECT_THAT(refusal(bad, {.mlp = 1}), HasSubstr("the importance of MLP 2 is not a finite number"));
  EXPECT_EQ(refusal(bad, {.attention = 1}), "");
}

/// Dropping attention 1 and 3 together is bad, though each alone looks best.
double cost_of(const Plan& plan) {
  double cost = 0;
  for (const int layer : plan.drop_attention) cost += *kScores.layers[static_cast<size_t>(layer)].attention;
  for (const int layer : plan.drop_mlp) cost += *kScores.layers[static_cast<size_t>(layer)].mlp;
  return cost + (plan.drops_attention(1) && plan.drops_attention(3) ? 1 : 0);
}

TEST(GreedyDrops, MeasuresAgainAfterEachDrop) {
  const GreedyResult result = greedy_drops(kScores, {.attention = 2}, cost_of, {}, no_progress(), nullptr);
  EXPECT_THAT(result.plan.drop_attention, ElementsAre(1, 4));
  EXPECT_DOUBLE_EQ(result.cost, 0.5);
  EXPECT_DOUBLE_EQ(result.one_shot_cost, 1.4);
  EXPECT_FALSE(result.one_shot_won);
  ASSERT_EQ(result.steps.size(), 2u);
  EXPECT_EQ(result.steps[0].part, (DropPart{Kind::kAttention, 1}));  // a tie goes to the less important, then lower
  EXPECT_EQ(result.steps[1].part, (DropPart{Kind::kAttention, 4}));
  EXPECT_EQ(result.steps[1].tried, 4);
}

TEST(GreedyDrops, TriesOnlyTheShortlist) {
  std::vector<Plan> tried;
  const auto cost = [&](const Plan& plan) {
    tried.push_back(plan);
    return cost_of(plan);
  };
  const GreedyResult result = greedy_drops(kScores, {.attention = 1}, cost, {.shortlist = 2}, no_progress(), nullptr);
  ASSERT_EQ(tried.size(), 2u);  // the one-shot plan was measured already
  EXPECT_THAT(tried[0].drop_attention, ElementsAre(1));
  EXPECT_THAT(tried[1].drop_attention, ElementsAre(3));
  EXPECT_EQ(result.steps[0].tried, 2);
  tried.clear();
  greedy_drops(kScores, {.joint = 1}, cost, {.shortlist = 0}, no_progress(), nullptr);
  EXPECT_EQ(tried.size(), 10u);
}

TEST(GreedyDrops, TakesTheOneShotPlanWhereItIsBetter) {
  // The first step is lured away from what is best together.
  const auto cost = [](const Plan& plan) {
    if (plan.drop_attention == std::vector<int>{1, 3}) return 0.1;
    if (plan.drop_attention == std::vector<int>{2}) return 0.2;
    return 1.0;
  };
  const GreedyResult result = greedy_drops(kScores, {.attention = 2}, cost, {}, no_progress(), nullptr);
  EXPECT_TRUE(result.one_shot_won);
  EXPECT_THAT(result.plan.drop_attention, ElementsAre(1, 3));
  EXPECT_DOUBLE_EQ(result.cost, 0.1);
  EXPECT_THAT(result.steps, IsEmpty());
}

TEST(GreedyDrops, RefusesAndStops) {
  EXPECT_THROW(greedy_drops(kScores, {.block = 6}, cost_of, {}, no_progress(), nullptr), Error);
  CancelFlag cancel{true};
  EXPECT_THROW(greedy_drops(kScores, {.block = 1}, cost_of, {}, no_progress(), &cancel), Interrupted);
}

TEST(SampledRows, AreEvenlySpread) {
  for (const int64_t window : {1, 10, 64, 65, 100, 512, 2048}) {
    int64_t count = 0, last = -1, widest = 0;
    for (int64_t i = 0; i < window; ++i) {
      if (!is_sampled_row(i, window)) continue;
      ++count;
      widest = std::max(widest, i - last);
      last = i;
    }
    EXPECT_EQ(count, std::min<int64_t>(64, window));
    EXPECT_EQ(last, window - 1);
    EXPECT_LE(widest, (window + 63) / 64);
  }
}

}  // namespace
}  // namespace pare
