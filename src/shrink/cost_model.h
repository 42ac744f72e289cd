#pragma once
#include <cstdint>
#include <vector>

#include "shrink/space.h"

namespace pare {

/// What a search believes about plans it has not tried: KL divergence as a sum of what each unit's type and each
/// dropped part costs. Small changes do add up nearly (their effects on the logits are almost independent, and KL is
/// quadratic in them); where they do not, teach() shifts the terms until the model fits what was measured.
class CostModel {
 public:
  explicit CostModel(const SearchSpace& space);

  /// Nats a token of a unit at an option, and of a part dropped, alone. Not negative.
  double unit_cost(size_t unit, size_t option) const { return units_[unit][option]; }
  double part_cost(size_t part) const { return parts_[part]; }
  void set_unit_cost(size_t unit, size_t option, double cost);
  void set_part_cost(size_t part, double cost);
  /// Multiplies every term.
  void scale(double factor);

  double predict(const Candidate& candidate) const;
  /// Moves the prediction for a candidate towards what was measured: each term by a factor, most where it has the
  /// largest share (the smallest change of logarithms that does it). rate 1 makes the prediction exact.
  void teach(const Candidate& candidate, double measured, double rate);

  /// What of a unit is left when parts are dropped, 0 to 1, by values.
  std::vector<double> shares_left(const Candidate& candidate) const;

 private:
  const SearchSpace& space_;
  std::vector<std::vector<double>> units_;  // [units][options]
  std::vector<double> parts_;
  std::vector<double> unit_values_;
};

/// What decoding one token takes, in seconds: a price for each value at each type and for each part that is there.
struct SpeedModel {
  double fixed = 0;
  std::vector<std::vector<double>> per_value;  // [units][options]
  std::vector<double> per_part;                // [parts] beside the products
  bool known() const { return !per_value.empty(); }
  double seconds(const SearchSpace& space, const Candidate& candidate) const;
};

}  // namespace pare
