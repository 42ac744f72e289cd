#include "shrink/search.h"

#include <gtest/gtest.h>

#include <set>

#include "shrink/random_search.h"
#include "shrink/synthetic.h"

namespace pare {
namespace {

using test::make_synthetic;
using test::Synthetic;

const SpeedModel kNoSpeed;

SearchOptions options_of(int64_t trials, uint64_t seed, const ShrinkBudget& budget = {}) {
  SearchOptions options;
  options.trials = trials;
  options.seed = seed;
  options.budget = budget;
  return options;
}

/// What a knapsack finds that knows the true costs.
Candidate oracle(const Synthetic& model, const Goal& goal) {
  CostModel costs(model.space);
  for (size_t u = 0; u < model.unit_cost.size(); ++u) {
    for (size_t o = 1; o < model.unit_cost[u].size(); ++o) costs.set_unit_cost(u, o, model.unit_cost[u][o]);
  }
  for (size_t p = 0; p < model.part_cost.size(); ++p) costs.set_part_cost(p, model.part_cost[p]);
  return Solver(model.space, costs, kNoSpeed).solve(goal).candidate;
}

TEST(PlanSearch, FindsTheKnownOptimumWhereCostsAddUp) {
  for (const double share : {0.6, 0.4, 0.3}) {
    Synthetic model = make_synthetic(16, 4, 11);
    const auto base = static_cast<double>(model.space.bytes(model.space.unchanged()));
    const auto bytes = static_cast<int64_t>(base * share);
    PlanSearch search(model.space, kNoSpeed, model.evaluator(),
                      options_of(150, 1, {.quality = {}, .bytes = bytes, .speed = {}}), no_progress());
    search.run();
    const auto best = search.best(0);
    ASSERT_TRUE(best);
    const double known = model.kl(oracle(model, {.kl = {}, .bytes = bytes, .seconds = {}}));
    EXPECT_LE(search.trials()[*best].score.kl, known * 1.02) << share;
    EXPECT_LE(search.trials()[*best].bytes, bytes);
  }
}

TEST(PlanSearch, FindsTheSmallestPlanOfAQuality) {
  Synthetic model = make_synthetic(16, 4, 12);
  model.noise = 0.05;
  PlanSearch search(model.space, kNoSpeed, model.evaluator(),
                    options_of(150, 1, {.quality = 0.97, .bytes = {}, .speed = {}}), no_progress());
  search.run();
  const double limit = search.kl_for_quality(0.97);
  EXPECT_NEAR(limit, -std::log(0.97), 1e-3);  // nats are KL in this model
  const auto best = search.best(limit);
  ASSERT_TRUE(best);
  const int64_t known = model.space.bytes(oracle(model, {.kl = limit, .bytes = {}, .seconds = {}}));
  EXPECT_LE(static_cast<double>(search.trials()[*best].bytes), 1.02 * static_cast<double>(known));
}

TEST(PlanSearch, BeatsRandomSearchAtTheSameNumberOfTrials) {
  for (const uint64_t seed : {1, 2, 3}) {
    Synthetic model = make_synthetic(16, 4, 20 + seed);
    model.interaction = 0.15;
    model.noise = 0.05;
    const auto base = static_cast<double>(model.space.bytes(model.space.unchanged()));
    const auto random = random_search(model.space, kNoSpeed, model.evaluator(), 120, seed);
    ASSERT_EQ(random.size(), 121u);
    for (const double share : {0.7, 0.5, 0.4, 0.33}) {
      const auto bytes = static_cast<int64_t>(base * share);
      PlanSearch search(model.space, kNoSpeed, model.evaluator(),
                        options_of(120, seed, {.quality = {}, .bytes = bytes, .speed = {}}), no_progress());
      search.run();
      ASSERT_LE(search.used(), 120);
      const auto ours = best_kl_at(search.trials(), bytes), theirs = best_kl_at(random, bytes);
      ASSERT_TRUE(ours) << seed << " " << share;
      if (theirs) {
        EXPECT_LT(*ours, 0.7 * *theirs) << seed << " " << share;
      }
    }
  }
}

TEST(PlanSearch, IsTheSameForASeedAndAnotherForAnother) {
  const auto run = [](uint64_t seed) {
    Synthetic model = make_synthetic(12, 3, 4);
    model.interaction = 0.2;
    model.noise = 0.1;
    PlanSearch search(model.space, kNoSpeed, model.evaluator(),
                      options_of(120, seed, {.quality = 0.95, .bytes = {}, .speed = {}}), no_progress());
    search.run();
    std::vector<std::string> plans;
    for (const SearchTrial& trial : search.trials()) plans.push_back(to_json(trial.plan) + trial.origin);
    return plans;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

TEST(PlanSearch, EvaluatesNoPlanTwiceAndCountsWhatItEvaluates) {
  for (const int64_t trials : {1, 7, 40, 150}) {
    Synthetic model = make_synthetic(10, 2, 5);
    PlanSearch search(model.space, kNoSpeed, model.evaluator(),
                      options_of(trials, 3, {.quality = 0.9, .bytes = {}, .speed = {}}), no_progress());
    search.run();
    EXPECT_LE(search.used(), trials);
    EXPECT_GE(search.used(), std::min<int64_t>(trials, 30));
    std::set<std::string> plans;
    for (const auto& [key, times] : model.evaluations) {
      EXPECT_EQ(times, 1) << key;
      plans.insert(key.substr(2));
    }
    EXPECT_EQ(static_cast<int64_t>(plans.size()), search.used());
  }
}

TEST(PlanSearch, StopsWhenTimeIsUp) {
  Synthetic model = make_synthetic(10, 2, 5);
  int calls = 0;
  SearchOptions options = options_of(1000, 3, {.quality = 0.9, .bytes = {}, .speed = {}});
  TrialEvaluator evaluator = model.evaluator();
  const auto evaluate = evaluator.evaluate;
  evaluator.evaluate = [&](const Plan& plan, int slice) {
    ++calls;
    return evaluate(plan, slice);
  };
  options.time_used = [&] { return calls / 25.0; };
  PlanSearch search(model.space, kNoSpeed, evaluator, options, no_progress());
  search.run();
  EXPECT_GE(calls, 20);
  EXPECT_LE(calls, 30);
  EXPECT_TRUE(search.best(1.0).has_value());
}

TEST(PlanSearch, ComparesPlansWithAndWithoutDropsAtTwoSizes) {
  Synthetic model = make_synthetic(16, 4, 13);
  PlanSearch search(model.space, kNoSpeed, model.evaluator(),
                    options_of(160, 1, {.quality = 0.97, .bytes = {}, .speed = {}}), no_progress());
  search.run();
  ASSERT_EQ(search.contests().size(), 2u);
  EXPECT_NE(search.contests()[0].bytes, search.contests()[1].bytes);
  for (const SizeContest& contest : search.contests()) {
    ASSERT_TRUE(contest.with && contest.without);
    EXPECT_GT(search.trials()[*contest.with].drops, 0);
    EXPECT_EQ(search.trials()[*contest.without].drops, 0);
    for (const auto& index : {contest.with, contest.without}) {
      EXPECT_TRUE(search.trials()[*index].complete);
      EXPECT_LE(search.trials()[*index].bytes, contest.bytes);
    }
  }
}

TEST(PlanSearch, SaysWhatCameNearest) {
  Synthetic model = make_synthetic(10, 2, 5);
  const ShrinkBudget budget{.quality = 0.999, .bytes = model.space.fixed_bytes + 100'000, .speed = {}};
  PlanSearch search(model.space, kNoSpeed, model.evaluator(), options_of(60, 1, budget), no_progress());
  search.run();
  EXPECT_FALSE(search.best(search.kl_for_quality(0.999)).has_value());
  EXPECT_TRUE(search.trials()[search.nearest()].complete);
  EXPECT_GT(search.nearest(), 0u);
}

TEST(PlanSearch, WorksWhereThereIsNothingToStoreSmaller) {
  Synthetic model = make_synthetic(6, 2, 5);
  for (size_t u = 0; u < model.space.units.size(); ++u) {
    model.space.units[u].options.resize(1);
    model.space.units[u].error.resize(1);
    model.unit_cost[u].resize(1);
  }
  for (auto& weight : model.space.weights) weight.bytes.resize(1);
  PlanSearch search(model.space, kNoSpeed, model.evaluator(),
                    options_of(60, 1, {.quality = 0.9, .bytes = {}, .speed = {}}), no_progress());
  search.run();
  const auto best = search.best(search.kl_for_quality(0.9));
  ASSERT_TRUE(best);
  EXPECT_GT(search.trials()[*best].drops, 0);
}

}  // namespace
}  // namespace pare
