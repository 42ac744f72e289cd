#include "shrink/solve.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace pare {
namespace {

constexpr double kCheapest = 1e-18, kDearest = 1e6;  // nats a byte (or a second): beyond any model
constexpr int kBisections = 72;
constexpr int kPolishRounds = 4;
constexpr size_t kFineCells = 4096, kCoarseCells = 512;  // of the knapsack
constexpr double kSlack = 1e-9;                          // relative, for sums in another order
constexpr double kTiny = 1e-12;

bool is_attention(const SearchSpace::Part& part) { return part.part.kind == DropPart::Kind::kAttention; }

}  // namespace

/// One change of a candidate and what it does.
struct Solver::Step {
  Candidate candidate;
  double kl = 0, bytes = 0, seconds = 0;  // of the candidate after it
};

Solver::Solver(const SearchSpace& space, const CostModel& costs, const SpeedModel& speed)
    : space_(space), costs_(costs), speed_(speed) {}

double Solver::seconds(const Candidate& candidate) const {
  return speed_.known() ? speed_.seconds(space_, candidate) : 0;
}

bool Solver::meets(const Candidate& candidate, const Goal& goal) const {
  if (goal.kl && costs_.predict(candidate) > *goal.kl * (1 + kSlack)) return false;
  if (goal.bytes && space_.bytes(candidate) > *goal.bytes) return false;
  return !goal.seconds || seconds(candidate) <= *goal.seconds * (1 + kSlack);
}

/// A model without any attention or any MLP is no transformer, and no format says it: the most important ones stay.
void Solver::keep_some(Candidate& candidate) const {
  for (const bool attention : {true, false}) {
    int last = -1;
    bool any_kept = false;
    for (size_t p = 0; p < space_.parts.size(); ++p) {
      if (is_attention(space_.parts[p]) != attention) continue;
      last = static_cast<int>(p);
      any_kept = any_kept || !candidate.dropped[p];
    }
    if (last >= 0 && !any_kept) candidate.dropped[static_cast<size_t>(last)] = 0;
  }
}

// A unit's cost, bytes and time shrink alike when parts of it are dropped, so its best type does not depend on what is
// dropped; and whether a part is worth keeping depends only on the types of its own weights. So one pass over units and
// one over parts finds the minimum of KL + prices.
Candidate Solver::best_at(const Prices& prices, const DropRule& drops) const {
  Candidate best = space_.unchanged();
  const size_t units = space_.units.size();
  std::vector<std::vector<double>> bytes(units);
  std::vector<double> values(units, 0);
  for (size_t u = 0; u < units; ++u) bytes[u].assign(space_.units[u].options.size(), 0);
  for (const SearchSpace::Weight& weight : space_.weights) {
    const auto u = static_cast<size_t>(weight.unit);
    values[u] += static_cast<double>(weight.values);
    for (size_t o = 0; o < weight.bytes.size(); ++o) bytes[u][o] += static_cast<double>(weight.bytes[o]);
  }
  std::vector<double> price(units, 0);  // of the unit at its best option, everything counted
  for (size_t u = 0; u < units; ++u) {
    price[u] = std::numeric_limits<double>::infinity();
    for (size_t o = 0; o < bytes[u].size(); ++o) {
      const double time = speed_.known() ? values[u] * speed_.per_value[u][o] : 0;
      const double total = costs_.unit_cost(u, o) + prices.byte * bytes[u][o] + prices.second * time;
      if (total < price[u]) price[u] = total, best.option[u] = static_cast<uint8_t>(o);
    }
  }
  std::vector<double> keep(space_.parts.size(), 0);
  for (size_t p = 0; p < keep.size(); ++p) {
    keep[p] = prices.byte * static_cast<double>(space_.parts[p].other_bytes) +
              (speed_.known() ? prices.second * speed_.per_part[p] : 0);
  }
  for (const SearchSpace::Weight& weight : space_.weights) {
    const auto u = static_cast<size_t>(weight.unit);
    if (weight.part >= 0 && values[u] > 0) {
      keep[static_cast<size_t>(weight.part)] += price[u] * static_cast<double>(weight.values) / values[u];
    }
  }
  for (size_t p = 0; p < keep.size(); ++p) {
    const bool forced = !drops.forced.empty() && drops.forced[p];
    best.dropped[p] = forced || (drops.allowed && costs_.part_cost(p) < keep[p]);
  }
  keep_some(best);
  return best;
}

std::vector<Solver::Step> Solver::steps(const Candidate& candidate, const DropRule& drops,
                                        const std::vector<uint8_t>& fixed) const {
  std::vector<Step> steps;
  const auto add = [&](Candidate changed) {
    keep_some(changed);
    if (changed == candidate) return;
    Step step{std::move(changed), 0, 0, 0};
    step.kl = costs_.predict(step.candidate);
    step.bytes = static_cast<double>(space_.bytes(step.candidate));
    step.seconds = seconds(step.candidate);
    steps.push_back(std::move(step));
  };
  const size_t units = space_.units.size();
  for (size_t u = 0; u < units; ++u) {
    if (!fixed.empty() && fixed[u]) continue;
    for (size_t o = 0; o < space_.units[u].options.size(); ++o) {
      if (o == candidate.option[u]) continue;
      Candidate changed = candidate;
      changed.option[u] = static_cast<uint8_t>(o);
      add(std::move(changed));
    }
  }
  for (size_t p = 0; p < space_.parts.size(); ++p) {
    if (!fixed.empty() && fixed[units + p]) continue;
    if (!drops.allowed && !candidate.dropped[p]) continue;
    if (!drops.forced.empty() && drops.forced[p]) continue;
    Candidate changed = candidate;
    changed.dropped[p] ^= 1;
    add(std::move(changed));
  }
  return steps;
}

Candidate Solver::repair(Candidate candidate, const Goal& goal, const DropRule& drops,
                         const std::vector<uint8_t>& fixed) const {
  const auto violation = [&](double kl, double bytes, double time) {
    double total = goal.kl ? std::max(0.0, kl / *goal.kl - 1 - kSlack) : 0;
    if (goal.bytes) total += std::max(0.0, bytes / static_cast<double>(*goal.bytes) - 1);
    return total + (goal.seconds ? std::max(0.0, time / *goal.seconds - 1 - kSlack) : 0);
  };
  const auto all_steps = [&] { return steps(candidate, drops, fixed); };
  // Each round takes the step of the lowest rate; a rate is what is paid for what is gained.
  const auto take_best = [&](const std::function<double(const Step&)>& rate) {
    double lowest = std::numeric_limits<double>::infinity();
    Candidate next;
    for (Step& step : all_steps()) {
      const double value = rate(step);
      if (value < lowest) lowest = value, next = std::move(step.candidate);
    }
    if (!std::isfinite(lowest)) return false;
    candidate = std::move(next);
    return true;
  };
  const auto most_rounds = static_cast<int>(4 * (space_.units.size() + space_.parts.size()) + 8);
  for (int round = 0; round < most_rounds; ++round) {
    const double kl = costs_.predict(candidate), bytes = static_cast<double>(space_.bytes(candidate));
    const double now = violation(kl, bytes, seconds(candidate));
    if (now <= 0) break;
    const bool moved = take_best([&](const Step& step) {
      const double gained = now - violation(step.kl, step.bytes, step.seconds);
      if (gained <= kTiny) return std::numeric_limits<double>::infinity();
      const double paid = goal.kl ? (step.bytes - bytes) / bytes : step.kl - kl;
      return paid > 0 ? paid / gained : paid * gained - kTiny;
    });
    if (!moved) break;
  }
  for (int round = 0; round < most_rounds; ++round) {
    const double kl = costs_.predict(candidate), bytes = static_cast<double>(space_.bytes(candidate));
    const double time = seconds(candidate);
    const bool moved = take_best([&](const Step& step) {
      if (violation(step.kl, step.bytes, step.seconds) > 0) return std::numeric_limits<double>::infinity();
      const double gained = goal.kl ? (bytes - step.bytes) / bytes : kl - step.kl;
      if (gained <= (goal.kl ? 0 : kTiny)) return std::numeric_limits<double>::infinity();
      double paid = goal.kl ? step.kl - kl : 0;
      if (goal.bytes) paid += (step.bytes - bytes) / static_cast<double>(*goal.bytes);
      if (goal.seconds) paid += (step.seconds - time) / *goal.seconds;
      return paid > 0 ? paid / gained : paid * gained - kTiny;
    });
    if (!moved) break;
  }
  return candidate;
}

// For given drops the types are a multiple-choice knapsack: of each unit one option, with a weight (bytes, or KL if
// that is limited) and a price (the other). Weights above the lightest options are counted in cells, rounded up, so
// that the limit holds.
Candidate Solver::retyped(const Candidate& candidate, const Goal& goal, size_t cell_count) const {
  if (goal.seconds || (goal.kl && goal.bytes) || space_.units.empty()) return candidate;
  const size_t units = space_.units.size();
  std::vector<std::vector<double>> weight(units), price(units);
  const std::vector<double> left = costs_.shares_left(candidate);
  for (size_t u = 0; u < units; ++u) {
    weight[u].assign(space_.units[u].options.size(), 0);
    for (size_t o = 0; o < weight[u].size(); ++o) price[u].push_back(left[u] * costs_.unit_cost(u, o));
  }
  for (const SearchSpace::Weight& matrix : space_.weights) {
    if (matrix.part >= 0 && candidate.dropped[static_cast<size_t>(matrix.part)]) continue;
    auto& of_unit = weight[static_cast<size_t>(matrix.unit)];
    for (size_t o = 0; o < of_unit.size(); ++o) of_unit[o] += static_cast<double>(matrix.bytes[o]);
  }
  double room = 0;  // for the units
  if (goal.kl) {
    std::swap(weight, price);
    room = *goal.kl - costs_.predict(candidate);
  } else {
    room = static_cast<double>(*goal.bytes - space_.bytes(candidate));
  }
  for (size_t u = 0; u < units; ++u) {
    room += weight[u][candidate.option[u]];
    const double least = *std::min_element(weight[u].begin(), weight[u].end());
    for (double& value : weight[u]) value -= least;
    room -= least;
  }
  if (!(room > 0)) return candidate;
  const double cell = room / static_cast<double>(cell_count);
  std::vector<std::vector<size_t>> cells(units);  // beyond the last for an option that is too heavy
  for (size_t u = 0; u < units; ++u) {
    for (const double heavy : weight[u]) {
      cells[u].push_back(heavy > room ? cell_count + 1 : static_cast<size_t>(std::ceil(heavy / cell - kSlack)));
    }
  }
  std::vector<double> best(cell_count + 1, 0), next(cell_count + 1);
  std::vector<std::vector<uint8_t>> taken(units, std::vector<uint8_t>(cell_count + 1));
  for (size_t u = 0; u < units; ++u) {
    std::fill(next.begin(), next.end(), std::numeric_limits<double>::infinity());
    for (size_t o = 0; o < cells[u].size(); ++o) {
      for (size_t at = cells[u][o]; at <= cell_count; ++at) {
        const double total = best[at - cells[u][o]] + price[u][o];
        if (total < next[at]) next[at] = total, taken[u][at] = static_cast<uint8_t>(o);
      }
    }
    best.swap(next);
  }
  Candidate result = candidate;
  size_t at = cell_count;
  for (size_t u = units; u-- > 0;) {
    result.option[u] = taken[u][at];
    at -= cells[u][result.option[u]];
  }
  return result;
}

// Prices alone decide which parts go; near a limit another set may leave room that suits the types better. So one part
// at a time is taken out or put back, each time with the types chosen anew, until nothing gains.
Candidate Solver::polish(Candidate candidate, const Goal& goal, const DropRule& drops) const {
  const auto value = [&](const Candidate& of) {
    return goal.kl ? static_cast<double>(space_.bytes(of)) : costs_.predict(of);
  };
  for (int round = 0; round < kPolishRounds; ++round) {
    Candidate best = candidate;
    const auto accept = [&](const Candidate& changed, size_t cells) {
      const Candidate typed = retyped(changed, goal, cells);
      if (meets(typed, goal) && value(typed) < value(best)) best = typed;
    };
    accept(candidate, kFineCells);
    for (size_t p = 0; p < space_.parts.size() && drops.allowed; ++p) {
      if (!drops.forced.empty() && drops.forced[p]) continue;
      Candidate changed = candidate;
      changed.dropped[p] ^= 1;
      keep_some(changed);
      accept(changed, kCoarseCells);
    }
    if (best == candidate) break;
    candidate = repair(std::move(best), goal, drops);
  }
  return candidate;
}

Solution Solver::bisect(const Goal& goal, const DropRule& drops, const Prices& direction) const {
  double low = std::log(kCheapest), high = std::log(kDearest);
  const auto at = [&](double log_price) {
    const double price = std::exp(log_price);
    return Prices{direction.byte * price, direction.second * price};
  };
  // Dearer bytes make smaller plans of more KL, so the goal is met on one side only: a limit on size or time above some
  // price, a limit on KL below one.
  const bool below = goal.kl.has_value();
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (low + high) / 2;
    const bool met = meets(best_at(at(middle), drops), goal);
    (met == below ? low : high) = middle;
  }
  const Prices prices = at(below ? low : high);
  Solution solution{best_at(prices, drops), prices, false};
  solution.candidate = polish(repair(solution.candidate, goal, drops), goal, drops);
  solution.meets = meets(solution.candidate, goal);
  return solution;
}

Solution Solver::solve(const Goal& goal, const DropRule& drops) const {
  if (goal.kl || (goal.bytes && !goal.seconds)) return bisect(goal, drops, {1, 0});
  if (goal.seconds && !goal.bytes) return bisect(goal, drops, {0, 1});
  if (!goal.bytes) return {best_at({}, drops), {}, true};
  // Two limits: perhaps one alone already keeps the other; else both have a price, each in its own measure.
  const Solution by_size = bisect({.kl = {}, .bytes = goal.bytes, .seconds = {}}, drops, {1, 0});
  if (meets(by_size.candidate, goal)) return by_size;
  const Solution by_time = bisect({.kl = {}, .bytes = {}, .seconds = goal.seconds}, drops, {0, 1});
  if (meets(by_time.candidate, goal)) return by_time;
  return bisect(goal, drops, {1 / static_cast<double>(*goal.bytes), 1 / *goal.seconds});
}

}  // namespace pare
