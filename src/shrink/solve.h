#pragma once
#include <cstdint>
#include <optional>

#include "shrink/cost_model.h"

namespace pare {

/// What a plan must keep to. With `kl`, the smallest plan within it is wanted; without, the least divergent one within
/// the others.
struct Goal {
  std::optional<double> kl;  // nats a token, at most
  std::optional<int64_t> bytes;
  std::optional<double> seconds;  // of a decoded token; needs a SpeedModel
};

/// Parts that a solution must not drop, or must.
struct DropRule {
  bool allowed = true;
  std::vector<uint8_t> forced;  // [parts] 1 = dropped in any case; may be empty
};

struct Prices {
  double byte = 0, second = 0;  // nats
};

struct Solution {
  Candidate candidate;
  Prices prices;       // at which it is the best: what a byte or a second is worth there
  bool meets = false;  // the goal, as the models see it
};

/// A knapsack over the additive model. Prices turn the limits into one sum that falls apart into independent choices,
/// each taken exactly, and the prices that just meet the goal are found by bisection. Prices only reach plans on the
/// convex hull, so types are then chosen once more for these drops by dynamic programming, and what room is left is
/// filled greedily. At least one attention and one MLP stay.
class Solver {
 public:
  /// All must outlive it. speed may be unknown if no goal has seconds.
  Solver(const SearchSpace& space, const CostModel& costs, const SpeedModel& speed);
  Candidate best_at(const Prices& prices, const DropRule& drops) const;
  Solution solve(const Goal& goal, const DropRule& drops = {}) const;
  /// Brings a candidate within the goal by the steps that cost least, then uses room that is left. What `fixed` marks
  /// (units, then parts) stays as it is.
  Candidate repair(Candidate candidate, const Goal& goal, const DropRule& drops,
                   const std::vector<uint8_t>& fixed = {}) const;
  bool meets(const Candidate& candidate, const Goal& goal) const;

 private:
  struct Step;
  double seconds(const Candidate& candidate) const;
  std::vector<Step> steps(const Candidate& candidate, const DropRule& drops, const std::vector<uint8_t>& fixed) const;
  void keep_some(Candidate& candidate) const;
  Candidate retyped(const Candidate& candidate, const Goal& goal, size_t cell_count) const;
  Candidate polish(Candidate candidate, const Goal& goal, const DropRule& drops) const;
  Solution bisect(const Goal& goal, const DropRule& drops, const Prices& direction) const;

  const SearchSpace& space_;
  const CostModel& costs_;
  const SpeedModel& speed_;
};

}  // namespace pare
