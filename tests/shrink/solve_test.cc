#include "shrink/solve.h"

#include <gtest/gtest.h>

#include <functional>

#include "shrink/synthetic.h"

namespace pare {
namespace {

using test::make_synthetic;
using test::Synthetic;

/// A model whose costs are what they are: the knapsack alone is under test.
CostModel exact_costs(const Synthetic& model) {
  CostModel costs(model.space);
  for (size_t u = 0; u < model.unit_cost.size(); ++u) {
    for (size_t o = 1; o < model.unit_cost[u].size(); ++o) costs.set_unit_cost(u, o, model.unit_cost[u][o]);
  }
  for (size_t p = 0; p < model.part_cost.size(); ++p) costs.set_part_cost(p, model.part_cost[p]);
  return costs;
}

/// Calls see with every candidate that keeps at least one attention and one MLP.
void for_all(const SearchSpace& space, const std::function<void(const Candidate&)>& see) {
  Candidate candidate = space.unchanged();
  const auto kept = [&](DropPart::Kind kind) {
    for (size_t p = 0; p < space.parts.size(); ++p) {
      if (space.parts[p].part.kind == kind && !candidate.dropped[p]) return true;
    }
    return false;
  };
  const std::function<void(size_t)> choose = [&](size_t i) {
    if (i < space.units.size()) {
      for (size_t o = 0; o < space.units[i].options.size(); ++o) {
        candidate.option[i] = static_cast<uint8_t>(o);
        choose(i + 1);
      }
    } else if (i < space.units.size() + space.parts.size()) {
      for (uint8_t dropped = 0; dropped < 2; ++dropped) {
        candidate.dropped[i - space.units.size()] = dropped;
        choose(i + 1);
      }
    } else if (kept(DropPart::Kind::kAttention) && kept(DropPart::Kind::kMlp)) {
      see(candidate);
    }
  };
  choose(0);
}

TEST(Solver, ComesCloseToTheBestOfAllPlansAtEverySize) {
  const Synthetic model = make_synthetic(3, 1, 5);  // 5 units of 3 types and 6 parts: 3^5 * 2^6 plans
  const CostModel costs = exact_costs(model);
  const SpeedModel no_speed;
  const Solver solver(model.space, costs, no_speed);
  const auto base = static_cast<double>(model.space.bytes(model.space.unchanged()));
  for (const double share : {0.9, 0.7, 0.55, 0.4, 0.3, 0.25}) {
    const auto bytes = static_cast<int64_t>(base * share);
    double best = 1e9;
    for_all(model.space, [&](const Candidate& candidate) {
      if (model.space.bytes(candidate) <= bytes) best = std::min(best, model.kl(candidate));
    });
    const Solution solution = solver.solve({.kl = {}, .bytes = bytes, .seconds = {}});
    EXPECT_TRUE(solution.meets);
    EXPECT_LE(model.space.bytes(solution.candidate), bytes);
    // Prices reach plans on the convex hull; filling what room is left comes near those between.
    EXPECT_LE(model.kl(solution.candidate), 1.25 * best + 1e-9) << share;
  }
}

TEST(Solver, SmallestPlanWithinADivergence) {
  const Synthetic model = make_synthetic(3, 1, 6);
  const CostModel costs = exact_costs(model);
  const SpeedModel no_speed;
  const Solver solver(model.space, costs, no_speed);
  for (const double kl : {0.0005, 0.005, 0.02, 0.1}) {
    int64_t best = INT64_MAX;
    for_all(model.space, [&](const Candidate& candidate) {
      if (model.kl(candidate) <= kl) best = std::min(best, model.space.bytes(candidate));
    });
    const Solution solution = solver.solve({.kl = kl, .bytes = {}, .seconds = {}});
    EXPECT_TRUE(solution.meets);
    EXPECT_LE(model.kl(solution.candidate), kl * (1 + 1e-9));
    EXPECT_LE(static_cast<double>(model.space.bytes(solution.candidate)), 1.06 * static_cast<double>(best)) << kl;
  }
}

TEST(Solver, KeepsToSpeedAndToBothLimits) {
  const Synthetic model = make_synthetic(4, 2, 7);
  const CostModel costs = exact_costs(model);
  SpeedModel speed;
  speed.fixed = 0.1;
  for (const auto& unit : model.space.units) {
    (void)unit;
    speed.per_value.push_back({2e-6, 1.5e-6, 1.2e-6});
  }
  speed.per_part.assign(model.space.parts.size(), 0.05);
  const Solver solver(model.space, costs, speed);
  const Candidate unchanged = model.space.unchanged();
  const double base = speed.seconds(model.space, unchanged);
  const auto bytes = static_cast<double>(model.space.bytes(unchanged));
  const Solution fast = solver.solve({.kl = {}, .bytes = {}, .seconds = base / 1.6});
  EXPECT_TRUE(fast.meets);
  EXPECT_LE(speed.seconds(model.space, fast.candidate), base / 1.6 * (1 + 1e-6));
  const auto half = static_cast<int64_t>(bytes * 0.5);
  const Solution both = solver.solve({.kl = {}, .bytes = half, .seconds = base / 1.6});
  EXPECT_TRUE(both.meets);
  EXPECT_LE(speed.seconds(model.space, both.candidate), base / 1.6 * (1 + 1e-6));
  EXPECT_LE(model.space.bytes(both.candidate), half);
  EXPECT_GE(model.kl(both.candidate), model.kl(fast.candidate) - 1e-9);
}

TEST(Solver, ObeysDropRulesAndKeepsOneOfEach) {
  const Synthetic model = make_synthetic(4, 2, 8);
  const CostModel costs = exact_costs(model);
  const SpeedModel no_speed;
  const Solver solver(model.space, costs, no_speed);
  const auto base = static_cast<double>(model.space.bytes(model.space.unchanged()));
  const auto small = static_cast<int64_t>(base * 0.22);
  const Solution none = solver.solve({.kl = {}, .bytes = small, .seconds = {}}, {.allowed = false, .forced = {}});
  EXPECT_EQ(model.space.drops(none.candidate), 0);
  EXPECT_FALSE(none.meets);  // types alone do not get there
  DropRule forced;
  forced.forced.assign(model.space.parts.size(), 0);
  forced.forced[3] = 1;
  const auto roomy = static_cast<int64_t>(base * 0.95);
  EXPECT_EQ(solver.solve({.kl = {}, .bytes = roomy, .seconds = {}}, forced).candidate.dropped[3], 1);
  const Solution nothing = solver.solve({.kl = {}, .bytes = 1, .seconds = {}});
  EXPECT_FALSE(nothing.meets);
  EXPECT_EQ(model.space.drops(nothing.candidate), static_cast<int>(model.space.parts.size()) - 2);
}

TEST(CostModel, OneLessonWithFullRateIsBelieved) {
  const Synthetic model = make_synthetic(4, 2, 9);
  CostModel costs = exact_costs(model);
  Candidate candidate = model.space.uniform(DType::kQ4_0);
  candidate.dropped[0] = candidate.dropped[5] = 1;
  const double before = costs.predict(candidate);
  EXPECT_NEAR(before, model.kl(candidate), 1e-12);
  for (int i = 0; i < 8; ++i) costs.teach(candidate, 1.7 * before, 1);  // Kaczmarz steps: exact to first order
  EXPECT_NEAR(costs.predict(candidate), 1.7 * before, 1e-3 * before);
  // What the candidate does not use is not touched.
  EXPECT_EQ(costs.unit_cost(0, 1), model.unit_cost[0][1]);
  EXPECT_EQ(costs.part_cost(1), model.part_cost[1]);
}

}  // namespace
}  // namespace pare
