#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "base/progress.h"
#include "evaluate/divergence.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "redundancy/choose.h"

namespace pare {

/// Makes variants of one model that share its packed weights, so that a variant costs no repacking.
class Variants {
 public:
  /// Loads the base model. Checkpoint is copied; the pool must outlive this.
  Variants(Checkpoint base, ThreadPool& pool, Progress* progress = nullptr);
  const Checkpoint& checkpoint() const { return base_; }
  Model& base() { return *model_; }
  WeightStore& store() { return *store_; }
  std::unique_ptr<Model> make(const Plan& plan);

 private:
  Checkpoint base_;
  ThreadPool& pool_;
  std::unique_ptr<WeightStore> store_;
  std::unique_ptr<Model> model_;  // keeps the store's weights in memory
};

/// What a plan costs: lower is better. Usually the mean KL divergence from the base model.
using PlanCost = std::function<double(const Plan&)>;
/// Cost as divergence of the plan's variant from a reference of the base; all must outlive the result.
PlanCost divergence_cost(Variants& variants, const Reference& reference, DType kv, const CancelFlag* cancel);

struct GreedyOptions {
  /// Candidates tried at each step: the least important by cosine among what is left; 0 = all.
  int shortlist = 8;
};

struct GreedyStep {
  DropPart part;    // what this step dropped
  double cost = 0;  // of everything dropped so far
  int tried = 0;    // candidates measured
};

struct GreedyResult {
  Plan plan;
  double cost = 0;
  std::vector<GreedyStep> steps;  // empty if the one-shot plan won
  double one_shot_cost = 0;
  bool one_shot_won = false;
};

/// Drops one part at a time: tries the shortlist, keeps the candidate whose plan costs least (ties: the less important
/// part), and measures again. Where the published one-shot choice costs less than what this arrives at, that is taken:
/// the result never costs more than choose_drops'. Throws Error as choose_drops does; Interrupted.
GreedyResult greedy_drops(const Redundancy& redundancy, const DropRequest& request, const PlanCost& cost,
                          const GreedyOptions& options, Progress& progress, const CancelFlag* cancel);

}  // namespace pare
