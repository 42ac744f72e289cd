#include "shrink/cost_model.h"

#include <algorithm>
#include <cmath>

namespace pare {
namespace {

// Below this a divergence is rounding of what the base predicted; it also keeps logarithms finite.
constexpr double kLeastCost = 1e-8;
constexpr double kMostTeaching =
    1.5;  // logarithm of the largest factor that one measurement may move the prediction by

}  // namespace

CostModel::CostModel(const SearchSpace& space)
    : space_(space), parts_(space.parts.size(), kLeastCost), unit_values_(space.units.size(), 0) {
  for (const SearchSpace::Unit& unit : space.units) {
    units_.emplace_back(unit.options.size(), kLeastCost);
    units_.back()[0] = 0;
  }
  for (const SearchSpace::Weight& weight : space.weights) {
    unit_values_[static_cast<size_t>(weight.unit)] += static_cast<double>(weight.values);
  }
}

void CostModel::set_unit_cost(size_t unit, size_t option, double cost) {
  units_[unit][option] = option == 0 ? 0 : std::max(cost, kLeastCost);
}

void CostModel::set_part_cost(size_t part, double cost) { parts_[part] = std::max(cost, kLeastCost); }

void CostModel::scale(double factor) {
  for (auto& options : units_) {
    for (double& cost : options) cost *= factor;
  }
  for (double& cost : parts_) cost *= factor;
}

std::vector<double> CostModel::shares_left(const Candidate& candidate) const {
  std::vector<double> left(unit_values_.size(), 0);
  for (const SearchSpace::Weight& weight : space_.weights) {
    if (weight.part >= 0 && candidate.dropped[static_cast<size_t>(weight.part)]) continue;
    left[static_cast<size_t>(weight.unit)] += static_cast<double>(weight.values);
  }
  for (size_t u = 0; u < left.size(); ++u) left[u] = unit_values_[u] > 0 ? left[u] / unit_values_[u] : 0;
  return left;
}

double CostModel::predict(const Candidate& candidate) const {
  const std::vector<double> left = shares_left(candidate);
  double total = 0;
  for (size_t u = 0; u < units_.size(); ++u) total += left[u] * units_[u][candidate.option[u]];
  for (size_t p = 0; p < parts_.size(); ++p) total += candidate.dropped[p] ? parts_[p] : 0;
  return total;
}

// In logarithms the prediction log(sum of terms) has the gradient share_i by log(term_i): one Kaczmarz step
// d log(term_i) = residual * share_i / sum(share^2) is the smallest change that removes the residual to first order.
void CostModel::teach(const Candidate& candidate, double measured, double rate) {
  const double predicted = predict(candidate);
  if (!(predicted > 0) || !std::isfinite(measured)) return;
  const double wanted = std::log(std::max(measured, kLeastCost) / predicted) * rate;
  const double residual = std::clamp(wanted, -kMostTeaching, kMostTeaching);
  const std::vector<double> left = shares_left(candidate);
  std::vector<std::pair<double*, double>> terms;  // and their shares
  double squares = 0;
  const auto add = [&](double& term, double part) {
    const double share = part / predicted;
    if (share > 0) terms.emplace_back(&term, share), squares += share * share;
  };
  for (size_t u = 0; u < units_.size(); ++u) {
    double& term = units_[u][candidate.option[u]];
    add(term, left[u] * term);
  }
  for (size_t p = 0; p < parts_.size(); ++p) {
    if (candidate.dropped[p]) add(parts_[p], parts_[p]);
  }
  for (const auto& [term, share] : terms) {
    const double step = std::clamp(residual * share / squares, -kMostTeaching, kMostTeaching);
    *term = std::max(kLeastCost, *term * std::exp(step));
  }
}

double SpeedModel::seconds(const SearchSpace& space, const Candidate& candidate) const {
  double total = fixed;
  for (size_t p = 0; p < per_part.size(); ++p) total += candidate.dropped[p] ? 0 : per_part[p];
  for (const SearchSpace::Weight& weight : space.weights) {
    if (weight.part >= 0 && candidate.dropped[static_cast<size_t>(weight.part)]) continue;
    const auto unit = static_cast<size_t>(weight.unit);
    total += static_cast<double>(weight.values) * per_value[unit][candidate.option[unit]];
  }
  return total;
}

}  // namespace pare
