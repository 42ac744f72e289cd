#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/random.h"
#include "shrink/solve.h"
#include "shrink/trials.h"

namespace pare {

/// How a search learns what a plan does. Slice 0 is a small part of the text, slice 1 the rest of it (if there are
/// two).
struct TrialEvaluator {
  std::function<SliceScore(const Plan& plan, int slice)> evaluate;
  int slices = 2;
  /// Size of the file, exactly; null: as the space adds it up.
  std::function<int64_t(const Plan& plan)> bytes;
};

/// What the result must keep to. Nothing set: the best at every size, with no size preferred.
struct ShrinkBudget {
  std::optional<double> quality;  // at least: base perplexity / perplexity reached
  std::optional<int64_t> bytes;   // of the file, at most
  std::optional<double> speed;    // decode speed over the base's, at least
};

struct SearchOptions {
  ShrinkBudget budget;
  int64_t trials = 1 << 20;  // plans evaluated, at most
  uint64_t seed = 0;
  /// How much of the time is used up, 0 to 1 and more; null: no limit.
  std::function<double()> time_used;
  double base_seconds = 0;  // a decoded token of the base, for budget.speed
};

/// A plan that was evaluated.
struct SearchTrial {
  Candidate candidate;
  Plan plan;
  int64_t bytes = 0;
  double seconds = 0;  // of a decoded token, as the speed model has it; 0 if there is none
  SliceScore slice;    // on slice 0
  SliceScore score;    // on all slices if complete, else the same as `slice`
  bool complete = false;
  int drops = 0;
  std::string origin;  // which step of the search proposed it
};

/// The best plan with drops and the best without, at one size.
struct SizeContest {
  int64_t bytes = 0;
  std::optional<size_t> with, without;  // indices of trials
};

/// A search over plans, in four steps: what single changes cost; the best plans at many sizes by a knapsack over those
/// costs, corrected by what the plans really cost; better ones around the budget; plans with and without drops at the
/// sizes that the report compares. Deterministic for a seed and a number of trials.
class PlanSearch {
 public:
  /// All must outlive it. Importance of parts and rounding errors of the space serve as first guesses.
  PlanSearch(const SearchSpace& space, const SpeedModel& speed, TrialEvaluator evaluator, SearchOptions options,
             Progress& progress);
  PlanSearch(const PlanSearch&) = delete;
  PlanSearch& operator=(const PlanSearch&) = delete;

  /// Runs until trials or time are used up, or nothing better has turned up for long. Throws what evaluate throws.
  void run();

  const std::vector<SearchTrial>& trials() const { return trials_; }
  /// Trials that the limit counts: all but the base itself.
  int64_t used() const { return static_cast<int64_t>(trials_.size()) - 1; }
  const CostModel& costs() const { return costs_; }
  const std::vector<SizeContest>& contests() const { return contests_; }

  /// The complete trial that serves the budget best if the limit of KL divergence is `kl_limit` (budgets with quality);
  /// nothing if none keeps to it. Skips trials in `except`.
  std::optional<size_t> best(double kl_limit, const std::vector<size_t>& except = {}) const;
  /// KL divergence at which a quality is to be expected, from the trials near it.
  double kl_for_quality(double quality) const;
  /// The complete trial that comes nearest to the budget, if none is within it; 0, the model as it is, if that is the
  /// only one.
  size_t nearest() const;

 private:
  double used_share() const;
  bool more() const { return used_share() < 1; }
  Goal goal() const;
  size_t evaluate(const Candidate& candidate, bool complete, const char* origin);
  std::optional<size_t> known(const Candidate& candidate) const;
  void complete(size_t index);
  double expected_kl(const SearchTrial& trial) const;
  double merit(const SearchTrial& trial, bool on_slice) const;
  double violation(const SearchTrial& trial, double kl_limit) const;

  void uniform_types();
  void guess_costs();
  void probe_units();
  void probe_parts();
  void calibrate();
  void sweep();
  void refine(double until);
  void refine_round();
  bool rounds_have_goals() const { return options_.budget.bytes || options_.budget.speed || options_.budget.quality; }
  void hold_contests();
  void contest(int64_t bytes, double until);
  std::optional<size_t> best_at_size(int64_t bytes, bool drops) const;
  Candidate sampled(const Goal& goal, const DropRule& drops, double spread);
  Candidate neighbour(const Goal& goal);
  DropRule force_cheapest(int count) const;
  std::vector<size_t> parents() const;

  const SearchSpace& space_;
  const SpeedModel& speed_;
  TrialEvaluator evaluator_;
  SearchOptions options_;
  Progress& progress_;
  Random random_;
  CostModel costs_;
  Solver solver_;
  std::vector<SearchTrial> trials_;  // the first is the base
  std::map<std::string, size_t> index_;
  std::vector<SizeContest> contests_;
  std::optional<DType> probe_;
  double slice_factor_ = 1;  // KL on all slices over KL on slice 0
  double byte_price_ = 0;    // nats a byte near the budget
  bool teaching_ = false;
  Goal goal_;                   // of the round in hand
  std::vector<int64_t> sizes_;  // of the sweep
  int64_t floor_bytes_ = 0;     // of the smallest types without drops
  size_t round_ = 0;
};

}  // namespace pare
