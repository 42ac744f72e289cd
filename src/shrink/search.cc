#include "shrink/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace pare {
namespace {

constexpr double kProbeTarget = 0.05;  // nats: large enough to stand out of rounding, small enough to add up
constexpr double kProbeShare = 0.45;   // of the budget, at most, for measuring single changes
constexpr double kSweepShare = 0.60;   // of the budget, at most, until the plans at many sizes are done
constexpr double kRefineShare = 0.85;  // ... until the neighbourhood of the budget is searched; contests get the rest
constexpr double kTeachSlice = 0.35, kTeachComplete = 0.6;
constexpr double kUnprobedPart = 1.5;  // parts that were not measured are thought dearer than their importance says
constexpr double kWorthless = 1000;    // nats: a plan whose predictions are not even numbers

double distance(double a, double b) { return std::fabs(std::log(std::max(a, 1e-9) / b)); }

}  // namespace

PlanSearch::PlanSearch(const SearchSpace& space, const SpeedModel& speed, TrialEvaluator evaluator,
                       SearchOptions options, Progress& progress)
    : space_(space),
      speed_(speed),
      evaluator_(std::move(evaluator)),
      options_(std::move(options)),
      progress_(progress),
      random_(options_.seed),
      costs_(space),
      solver_(space, costs_, speed) {
  SearchTrial base;
  base.candidate = space_.unchanged();
  base.plan = space_.to_plan(base.candidate);
  base.bytes = space_.bytes(base.candidate);
  base.seconds = speed_.known() ? speed_.seconds(space_, base.candidate) : 0;
  base.slice = base.score = {0, 0, 1, 0};
  base.complete = true;
  base.origin = "the model as it is";
  index_[to_json(base.plan)] = 0;
  trials_.push_back(std::move(base));
}

void PlanSearch::run() {
  progress_.start("searching", "trials", options_.time_used ? 0 : options_.trials);
  uniform_types();
  guess_costs();
  probe_units();
  probe_parts();
  calibrate();
  sweep();
  refine(kRefineShare);
  hold_contests();
  progress_.finish();
}

double PlanSearch::used_share() const {
  const double trials = static_cast<double>(used()) / static_cast<double>(std::max<int64_t>(1, options_.trials));
  return std::max(trials, options_.time_used ? options_.time_used() : 0.0);
}

std::optional<size_t> PlanSearch::known(const Candidate& candidate) const {
  const auto found = index_.find(to_json(space_.to_plan(space_.canonical(candidate))));
  return found == index_.end() ? std::nullopt : std::optional(found->second);
}

size_t PlanSearch::evaluate(const Candidate& candidate, bool all_slices, const char* origin) {
  SearchTrial trial;
  trial.candidate = space_.canonical(candidate);
  trial.plan = space_.to_plan(trial.candidate);
  const std::string key = to_json(trial.plan);
  if (const auto found = index_.find(key); found != index_.end()) {
    if (all_slices) complete(found->second);
    return found->second;
  }
  trial.bytes = evaluator_.bytes ? evaluator_.bytes(trial.plan) : space_.bytes(trial.candidate);
  trial.seconds = speed_.known() ? speed_.seconds(space_, trial.candidate) : 0;
  trial.drops = space_.drops(trial.candidate);
  trial.origin = origin;
  trial.slice = trial.score = evaluator_.evaluate(trial.plan, 0);
  const size_t index = trials_.size();
  index_[key] = index;
  trials_.push_back(std::move(trial));
  if (teaching_ && !all_slices) costs_.teach(trials_[index].candidate, expected_kl(trials_[index]), kTeachSlice);
  if (all_slices) complete(index);
  progress_.update(used(), fmt::format("{:.1f} MB, KL {:.4f}", static_cast<double>(trials_[index].bytes) / 1e6,
                                       trials_[index].score.kl));
  return index;
}

void PlanSearch::complete(size_t index) {
  if (trials_[index].complete) return;
  if (evaluator_.slices > 1) {
    const SliceScore rest = evaluator_.evaluate(trials_[index].plan, 1);
    trials_[index].score = combine(trials_[index].slice, rest);
  }
  trials_[index].complete = true;
  if (teaching_) costs_.teach(trials_[index].candidate, trials_[index].score.kl, kTeachComplete);
  double sum = 0, count = 0;
  for (const SearchTrial& trial : trials_) {
    if (!trial.complete || trial.slice.kl <= 1e-7 || trial.score.kl >= kWorthless / 2) continue;
    sum += std::log(trial.score.kl / trial.slice.kl), ++count;
  }
  if (count > 0) slice_factor_ = std::exp(sum / count);
}

double PlanSearch::expected_kl(const SearchTrial& trial) const {
  return trial.complete ? trial.score.kl : trial.slice.kl * slice_factor_;
}

void PlanSearch::uniform_types() {
  const std::vector<DType> types = space_.types();
  // Smallest first: whatever happens next, there is something to fall back on.
  for (auto type = types.rbegin(); type != types.rend() && more(); ++type) {
    const size_t index = evaluate(space_.uniform(*type), true, "one type for everything");
    const double kl = trials_[index].score.kl;
    const auto probe_kl = [&] { return trials_[*known(space_.uniform(*probe_))].score.kl; };
    if (!probe_ || distance(kl, kProbeTarget) < distance(probe_kl(), kProbeTarget)) probe_ = *type;
  }
}

/// Before anything else is known, a change costs as its rounding error and size, a drop as its importance.
void PlanSearch::guess_costs() {
  std::vector<double> values(space_.units.size(), 0);
  double all = 0;
  for (const SearchSpace::Weight& weight : space_.weights) {
    values[static_cast<size_t>(weight.unit)] += static_cast<double>(weight.values);
    all += static_cast<double>(weight.values);
  }
  for (size_t u = 0; u < space_.units.size(); ++u) {
    for (size_t o = 1; o < space_.units[u].options.size(); ++o) {
      costs_.set_unit_cost(u, o, space_.units[u].error[o] * values[u] / std::max(all, 1.0));
    }
  }
  for (size_t p = 0; p < space_.parts.size(); ++p) costs_.set_part_cost(p, kUnprobedPart * space_.parts[p].importance);
  calibrate();
}

void PlanSearch::probe_units() {
  if (!probe_) return;
  const Candidate probed = space_.uniform(*probe_);
  for (size_t u = 0; u < space_.units.size(); ++u) {
    const size_t option = probed.option[u];
    if (option == 0) continue;
    if (used_share() >= kProbeShare) return;
    Candidate single = space_.unchanged();
    single.option[u] = static_cast<uint8_t>(option);
    const double kl = expected_kl(trials_[evaluate(single, false, "one change alone")]);
    const double error = std::max(space_.units[u].error[option], 1e-12);
    for (size_t o = 1; o < space_.units[u].options.size(); ++o) {
      costs_.set_unit_cost(u, o, kl * space_.units[u].error[o] / error);
    }
  }
}

void PlanSearch::probe_parts() {
  double sum = 0, count = 0;
  size_t probed = 0;
  for (; probed < space_.parts.size() && used_share() < kProbeShare; ++probed) {
    Candidate single = space_.unchanged();
    single.dropped[probed] = 1;
    const double kl = expected_kl(trials_[evaluate(single, false, "one drop alone")]);
    costs_.set_part_cost(probed, kl);
    if (space_.parts[probed].importance > 0 && kl > 0) {
      sum += std::log(kl / space_.parts[probed].importance), ++count;
    }
  }
  const double factor = count > 0 ? std::exp(sum / count) : 1;
  for (size_t p = probed; p < space_.parts.size(); ++p) {
    costs_.set_part_cost(p, kUnprobedPart * factor * space_.parts[p].importance);
  }
}

/// Rounding errors say how types compare within a unit; what a type costs throughout the model says by how much.
void PlanSearch::calibrate() {
  for (const DType type : space_.types()) {
    const Candidate uniform = space_.uniform(type);
    const auto trial = known(uniform);
    if (!trial) continue;
    double of_type = 0;
    for (size_t u = 0; u < space_.units.size(); ++u) {
      if (space_.units[u].options[uniform.option[u]] == type) of_type += costs_.unit_cost(u, uniform.option[u]);
    }
    const double rest = costs_.predict(uniform) - of_type, kl = trials_[*trial].score.kl;
    if (!(of_type > 0)) continue;
    const double factor = std::max(kl - rest, 0.1 * kl) / of_type;
    for (size_t u = 0; u < space_.units.size(); ++u) {
      const size_t o = uniform.option[u];
      if (space_.units[u].options[o] == type) costs_.set_unit_cost(u, o, costs_.unit_cost(u, o) * factor);
    }
  }
}

Goal PlanSearch::goal() const {
  const ShrinkBudget& budget = options_.budget;
  Goal goal;
  if (budget.bytes || budget.speed) {
    goal.bytes = budget.bytes;
    if (budget.speed && speed_.known()) goal.seconds = options_.base_seconds / *budget.speed;
  } else if (budget.quality) {
    goal.kl = kl_for_quality(*budget.quality);
  } else {
    goal.bytes = sizes_.empty() ? trials_[0].bytes / 2 : sizes_[round_ % sizes_.size()];
  }
  return goal;
}

void PlanSearch::sweep() {
  teaching_ = true;
  const auto try_goal = [&](const Goal& wanted) {
    if (used_share() >= kSweepShare) return;
    const Solution solution = solver_.solve(wanted);
    const double predicted = costs_.predict(solution.candidate);
    const size_t index = evaluate(solution.candidate, true, "best by the costs of single changes");
    // What it really costs has corrected the model; where that was far off, the best may be another plan now.
    if (distance(trials_[index].score.kl, std::max(predicted, 1e-9)) < 0.1 || used_share() >= kSweepShare) return;
    evaluate(solver_.solve(wanted).candidate, true, "best by corrected costs");
  };
  const bool has_budget = options_.budget.bytes || options_.budget.speed || options_.budget.quality;
  if (has_budget) try_goal(goal());
  Candidate smallest = space_.unchanged();
  for (size_t u = 0; u < space_.units.size(); ++u) {
    smallest.option[u] = static_cast<uint8_t>(space_.units[u].options.size() - 1);
  }
  floor_bytes_ = space_.bytes(smallest);
  const double low = 0.8 * static_cast<double>(floor_bytes_), high = 0.9 * static_cast<double>(trials_[0].bytes);
  const auto count = static_cast<int>(std::clamp<int64_t>(options_.trials / 12, 4, 12));
  for (int i = 0; i < count; ++i) {
    const double share = static_cast<double>(i) / (count - 1);
    sizes_.push_back(static_cast<int64_t>(low * std::pow(high / low, share)));
  }
  for (const int64_t bytes : sizes_) try_goal({.kl = {}, .bytes = bytes, .seconds = {}});
  if (has_budget) try_goal(goal());  // with all that was learned meanwhile
}

double PlanSearch::kl_for_quality(double quality) const {
  const double nats = std::max(0.0, -std::log(quality));
  // On text that the base itself would write, KL is what the perplexity rises by; real text differs by a factor, taken
  // from the trials around, with the weight of one trial on 1.
  const double weight = std::max(nats, 1e-3);
  double sum_nats = weight, sum_kl = weight;
  for (const SearchTrial& trial : trials_) {
    if (!trial.complete || trial.score.kl < nats / 4 || trial.score.kl > nats * 4) continue;
    sum_nats += trial.score.nats, sum_kl += trial.score.kl;
  }
  const double factor = std::clamp(sum_nats / sum_kl, 0.5, 2.0);
  return std::max(nats / factor, 1e-6);
}

double PlanSearch::violation(const SearchTrial& trial, double kl_limit) const {
  const ShrinkBudget& budget = options_.budget;
  double total = 0;
  if (budget.bytes) {
    total += std::max(0.0, std::log(static_cast<double>(trial.bytes) / static_cast<double>(*budget.bytes)));
  }
  if (budget.speed && speed_.known()) {
    total += std::max(0.0, std::log(trial.seconds * *budget.speed / options_.base_seconds));
  }
  // A percent of quality weighs as much as five of size.
  if (budget.quality) total += 5 * std::max(0.0, trial.score.kl - kl_limit);
  return total;
}

std::optional<size_t> PlanSearch::best(double kl_limit, const std::vector<size_t>& except) const {
  const bool by_size = !options_.budget.bytes && !options_.budget.speed && options_.budget.quality;
  std::optional<size_t> best;
  const auto better = [&](const SearchTrial& a, const SearchTrial& b) {
    const auto first = std::pair(static_cast<double>(a.bytes), a.score.kl);
    const auto second = std::pair(static_cast<double>(b.bytes), b.score.kl);
    if (by_size) return first < second;
    return std::pair(first.second, first.first) < std::pair(second.second, second.first);
  };
  for (size_t i = 0; i < trials_.size(); ++i) {
    if (!trials_[i].complete || violation(trials_[i], kl_limit) > 1e-9) continue;
    if (i == 0 && by_size) continue;  // that is not smaller
    if (std::find(except.begin(), except.end(), i) != except.end()) continue;
    if (!best || better(trials_[i], trials_[*best])) best = i;
  }
  return best;
}

size_t PlanSearch::nearest() const {
  const double kl_limit = options_.budget.quality ? kl_for_quality(*options_.budget.quality) : 0;
  size_t nearest = 0;
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = trials_.size() > 1 ? 1 : 0; i < trials_.size(); ++i) {
    if (!trials_[i].complete) continue;
    const double value = violation(trials_[i], kl_limit);
    if (value < least) least = value, nearest = i;
  }
  return nearest;
}

}  // namespace pare
