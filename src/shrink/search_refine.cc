#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "shrink/search.h"

// The later steps of a search: better plans around the budget, and plans with and without drops at the same size.

namespace pare {
namespace {

constexpr int kProposals = 4;  // tried on the small slice for one that is tried on all text
constexpr int kAttempts = 12;  // to propose something not tried yet
constexpr int kPatience = 24;  // rounds without anything better
constexpr size_t kParents = 5;
constexpr double kPromotion = 0.05;  // a proposal may look this much worse on the small slice and still be completed
constexpr int kContestRounds = 4;

}  // namespace

/// Lower is better. With a limit on KL: KL plus what the bytes are worth there; a limit overstepped counts twice.
double PlanSearch::merit(const SearchTrial& trial, bool on_slice) const {
  const double kl = on_slice ? trial.slice.kl * slice_factor_ : expected_kl(trial);
  if (goal_.bytes && trial.bytes > *goal_.bytes) return std::numeric_limits<double>::infinity();
  if (goal_.seconds && trial.seconds > *goal_.seconds * (1 + 1e-9)) return std::numeric_limits<double>::infinity();
  if (!goal_.kl) return kl;
  return kl + byte_price_ * static_cast<double>(trial.bytes) + 2 * std::max(0.0, kl - *goal_.kl);
}

/// The complete trials that serve the goal best.
std::vector<size_t> PlanSearch::parents() const {
  std::vector<size_t> order;
  for (size_t i = 1; i < trials_.size(); ++i) {
    if (trials_[i].complete && std::isfinite(merit(trials_[i], false))) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return merit(trials_[a], false) < merit(trials_[b], false); });
  order.resize(std::min(order.size(), kParents));
  return order;
}

/// The best plan if the costs were a little different: proposals spread where the model is unsure.
Candidate PlanSearch::sampled(const Goal& wanted, const DropRule& drops, double spread) {
  CostModel drawn = costs_;
  for (size_t u = 0; u < space_.units.size(); ++u) {
    const double factor = std::exp(spread * random_.normal());  // one a unit: its types stay in order
    for (size_t o = 1; o < space_.units[u].options.size(); ++o) {
      drawn.set_unit_cost(u, o, costs_.unit_cost(u, o) * factor);
    }
  }
  for (size_t p = 0; p < space_.parts.size(); ++p) {
    drawn.set_part_cost(p, costs_.part_cost(p) * std::exp(spread * random_.normal()));
  }
  return Solver(space_, drawn, speed_).solve(wanted, drops).candidate;
}

/// A good plan with one or two choices changed at random, and the rest brought back within the goal around them.
Candidate PlanSearch::neighbour(const Goal& wanted) {
  const std::vector<size_t> from = parents();
  Candidate candidate =
      from.empty() ? solver_.solve(wanted).candidate : trials_[from[random_.below(from.size())]].candidate;
  const size_t units = space_.units.size(), parts = space_.parts.size();
  std::vector<uint8_t> fixed(units + parts, 0);
  const uint64_t changes = 1 + random_.below(2);
  for (uint64_t i = 0; i < changes; ++i) {
    const bool drop = parts > 0 && (units == 0 || random_.below(4) == 0);
    if (drop) {
      const size_t p = random_.below((parts + 1) / 2);  // the less important half
      candidate.dropped[p] ^= 1, fixed[units + p] = 1;
    } else if (units > 0) {
      const size_t u = random_.below(units), options = space_.units[u].options.size();
      if (options < 2) continue;
      const auto step = static_cast<size_t>(1 + random_.below(options - 1));
      candidate.option[u] = static_cast<uint8_t>((candidate.option[u] + step) % options), fixed[u] = 1;
    }
  }
  return solver_.repair(std::move(candidate), wanted, {}, fixed);
}

void PlanSearch::refine_round() {
  const Solution solution = solver_.solve(goal_);
  if (solution.prices.byte > 0) byte_price_ = solution.prices.byte;
  if (!known(solution.candidate)) {
    evaluate(solution.candidate, true, "best by corrected costs");
    return;
  }
  std::optional<size_t> winner;
  for (int i = 0; i < kProposals && more(); ++i) {
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      const bool local = i % 2 == 0;
      const Candidate proposal = local ? neighbour(goal_) : sampled(goal_, {}, 0.2 + 0.1 * attempt);
      if (known(proposal)) continue;
      const size_t index = evaluate(proposal, false, local ? "a neighbour of a good plan" : "a guess at other costs");
      if (!winner || merit(trials_[index], true) < merit(trials_[*winner], true)) winner = index;
      break;
    }
  }
  if (!winner || !more()) return;
  const std::vector<size_t> best = parents();
  const bool promising =
      best.empty() || merit(trials_[*winner], true) <= merit(trials_[best.front()], true) +
                                                           kPromotion * trials_[best.front()].slice.kl * slice_factor_;
  if (promising) complete(*winner);
}

void PlanSearch::refine(double until) {
  double best = std::numeric_limits<double>::infinity();
  int idle = 0;
  const auto most_idle = kPatience * static_cast<int>(std::max<size_t>(1, rounds_have_goals() ? 1 : sizes_.size()));
  while (used_share() < until && idle < most_idle) {
    goal_ = goal();
    const int64_t before = used();
    refine_round();
    ++round_;
    double now = 0;
    if (rounds_have_goals()) {
      const std::vector<size_t> order = parents();
      if (!order.empty()) now = merit(trials_[order.front()], false);
    } else {
      for (const int64_t bytes : sizes_) {
        for (const bool drops : {false, true}) {
          if (const auto index = best_at_size(bytes, drops)) now += trials_[*index].score.kl;
        }
      }
    }
    idle = now < best * (1 - 1e-6) || !std::isfinite(best) ? 0 : idle + 1;
    best = std::min(best, now);
    if (used() == before) idle += 4;  // nothing new to propose
  }
}

/// The parts whose drop costs least for each byte it saves.
DropRule PlanSearch::force_cheapest(int count) const {
  const size_t parts = space_.parts.size();
  std::vector<double> bytes(parts, 1);
  for (size_t p = 0; p < parts; ++p) bytes[p] += static_cast<double>(space_.parts[p].other_bytes);
  for (const SearchSpace::Weight& weight : space_.weights) {
    if (weight.part >= 0) bytes[static_cast<size_t>(weight.part)] += static_cast<double>(weight.bytes.back());
  }
  std::vector<size_t> order(parts);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return costs_.part_cost(a) / bytes[a] < costs_.part_cost(b) / bytes[b]; });
  DropRule rule;
  rule.forced.assign(parts, 0);
  for (size_t i = 0; i < std::min(parts, static_cast<size_t>(count)); ++i) rule.forced[order[i]] = 1;
  return rule;
}

std::optional<size_t> PlanSearch::best_at_size(int64_t bytes, bool drops) const {
  std::optional<size_t> best;
  for (size_t i = 0; i < trials_.size(); ++i) {
    if (!trials_[i].complete || trials_[i].bytes > bytes || (trials_[i].drops > 0) != drops) continue;
    if (!best || trials_[i].score.kl < trials_[*best].score.kl) best = i;
  }
  return best;
}

void PlanSearch::contest(int64_t bytes, double until) {
  const Goal wanted{.kl = {}, .bytes = bytes, .seconds = {}};
  goal_ = wanted;
  const auto left = [&] { return used_share() < until; };
  const DropRule none{.allowed = false, .forced = {}};
  if (left()) evaluate(solver_.solve(wanted, none).candidate, true, "best without drops at a size");
  for (int round = 0; round < kContestRounds && left(); ++round) {
    std::optional<size_t> with, without;
    for (const int count : {1, 2, 4, 8}) {
      if (!left()) break;
      DropRule forced = force_cheapest(count);
      const Candidate proposal =
          round == 0 ? solver_.solve(wanted, forced).candidate : sampled(wanted, forced, 0.2 * round);
      if (known(proposal)) continue;
      const size_t index = evaluate(proposal, false, "with drops at a size");
      if (!with || merit(trials_[index], true) < merit(trials_[*with], true)) with = index;
    }
    if (with && left()) complete(*with);
    for (int i = 0; i < 2 && left(); ++i) {
      const Candidate proposal = sampled(wanted, none, 0.2 + 0.2 * i);
      if (known(proposal)) continue;
      const size_t index = evaluate(proposal, false, "without drops at a size");
      if (!without || merit(trials_[index], true) < merit(trials_[*without], true)) without = index;
    }
    const auto best = best_at_size(bytes, false);
    if (without && left() && (!best || merit(trials_[*without], true) < merit(trials_[*best], true))) {
      complete(*without);
    }
  }
}

void PlanSearch::hold_contests() {
  const double kl_limit = options_.budget.quality ? kl_for_quality(*options_.budget.quality) : 0;
  const auto chosen = best(kl_limit);
  const int64_t first = trials_[chosen.value_or(nearest())].bytes;
  // The second size is well apart from the first, on the side where types alone still leave a choice.
  const double other =
      first > floor_bytes_ * 12 / 10 ? static_cast<double>(floor_bytes_) : static_cast<double>(trials_[0].bytes);
  const auto second = static_cast<int64_t>(std::sqrt(static_cast<double>(first) * other));
  const double now = used_share();
  contest(first, now + (1 - now) * 0.5);
  contest(second, 1);
  for (const int64_t bytes : {first, second})
    contests_.push_back({bytes, best_at_size(bytes, true), best_at_size(bytes, false)});
}

}  // namespace pare
