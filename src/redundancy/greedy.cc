#include "redundancy/greedy.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace pare {
namespace {

int64_t trials(const Redundancy& redundancy, const std::vector<DropPhase>& steps, int shortlist) {
  int64_t total = 1;  // the one-shot plan
  for (const DropPhase& phase : steps) {
    const auto parts = static_cast<int64_t>(parts_by_importance(redundancy, phase.kinds).size());
    for (int i = 0; i < phase.count; ++i) {
      const int64_t left = std::max<int64_t>(1, parts - i);
      total += shortlist > 0 ? std::min<int64_t>(shortlist, left) : left;
    }
  }
  return total;
}

}  // namespace

Variants::Variants(Checkpoint base, ThreadPool& pool, Progress* progress)
    : base_(std::move(base)), pool_(pool), store_(std::make_unique<WeightStore>(pool)) {
  model_ =
      Model::load(base_, pool_, {.progress = progress, .store = store_.get(), .kernel = {}, .attention_threshold = 0});
}

std::unique_ptr<Model> Variants::make(const Plan& plan) {
  return Model::load(apply_plan(base_, plan), pool_,
                     {.progress = nullptr, .store = store_.get(), .kernel = {}, .attention_threshold = 0});
}

PlanCost divergence_cost(Variants& variants, const Reference& reference, DType kv, const CancelFlag* cancel) {
  return [&variants, &reference, kv, cancel](const Plan& plan) {
    const std::unique_ptr<Model> model = variants.make(plan);
    return divergence(*model, reference, kv, no_progress(), cancel).mean_kl;
  };
}

GreedyResult greedy_drops(const Redundancy& redundancy, const DropRequest& request, const PlanCost& cost,
                          const GreedyOptions& options, Progress& progress, const CancelFlag* cancel) {
  if (options.shortlist < 0) fail("the shortlist must not be negative");
  const Plan one_shot = choose_drops(redundancy, request);  // also refuses what cannot be done
  const std::vector<DropPhase> steps = phases(request);
  GreedyResult result;
  int64_t done = 0;
  progress.start("dropping", "trials", trials(redundancy, steps, options.shortlist));
  const auto measure = [&](const Plan& plan) {
    throw_if_cancelled(cancel);
    const double value = cost(plan);
    progress.update(++done, fmt::format("{} dropped", result.steps.size()));
    return value;
  };
  for (const DropPhase& phase : steps) {
    for (int i = 0; i < phase.count; ++i) {
      std::vector<DropPart> candidates = parts_by_importance(redundancy, phase.kinds, result.plan);
      if (options.shortlist > 0 && candidates.size() > static_cast<size_t>(options.shortlist)) {
        candidates.resize(static_cast<size_t>(options.shortlist));
      }
      GreedyStep best;
      for (const DropPart& part : candidates) {
        const double value = measure(with_drop(result.plan, part, redundancy));
        if (best.tried++ == 0 || value < best.cost) best.part = part, best.cost = value;
      }
      result.plan = with_drop(result.plan, best.part, redundancy);
      result.cost = best.cost;
      result.steps.push_back(best);
    }
  }
  result.one_shot_cost = one_shot == result.plan ? result.cost : measure(one_shot);
  progress.finish();
  if (result.one_shot_cost < result.cost) {
    result.plan = one_shot;
    result.cost = result.one_shot_cost;
    result.one_shot_won = true;
    result.steps.clear();
  }
  return result;
}

}  // namespace pare
