#pragma once
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/random.h"
#include "shrink/search.h"

namespace pare::test {

/// A made-up model: units and parts whose costs are known, so that what a search should find is known too.
struct Synthetic {
  SearchSpace space;
  std::vector<std::vector<double>> unit_cost;  // [units][options]
  std::vector<double> part_cost;
  /// How costs of drops multiply: 0 = they add up.
  double interaction = 0;
  /// How much slice 0 errs, by plan: a factor exp(noise * normal).
  double noise = 0;
  std::map<std::string, int> evaluations;  // "slice:plan" -> times

  double kl(const Candidate& candidate) const {
    double types = 0, drops = 0;
    std::vector<double> values(space.units.size()), left(space.units.size());
    for (const auto& weight : space.weights) {
      const auto u = static_cast<size_t>(weight.unit);
      values[u] += static_cast<double>(weight.values);
      if (weight.part < 0 || !candidate.dropped[static_cast<size_t>(weight.part)]) {
        left[u] += static_cast<double>(weight.values);
      }
    }
    for (size_t u = 0; u < values.size(); ++u) types += unit_cost[u][candidate.option[u]] * left[u] / values[u];
    int count = 0;
    for (size_t p = 0; p < part_cost.size(); ++p) {
      if (candidate.dropped[p]) drops += part_cost[p], ++count;
    }
    return types + drops * (1 + interaction * std::max(0, count - 1)) + interaction * std::sqrt(types * drops);
  }

  /// The candidate that a plan of this space came from.
  Candidate candidate_of(const Plan& plan) const {
    Candidate candidate = space.unchanged();
    for (size_t u = 0; u < space.units.size(); ++u) {
      const auto& unit = space.units[u];
      const auto type = plan.type_of(unit.tensor, unit.first_layer);
      for (size_t o = 1; o < unit.options.size(); ++o) {
        if (type == unit.options[o]) candidate.option[u] = static_cast<uint8_t>(o);
      }
    }
    for (size_t p = 0; p < space.parts.size(); ++p) {
      const DropPart& part = space.parts[p].part;
      candidate.dropped[p] =
          part.kind == DropPart::Kind::kAttention ? plan.drops_attention(part.layer) : plan.drops_mlp(part.layer);
    }
    return space.canonical(candidate);
  }

  TrialEvaluator evaluator() {
    TrialEvaluator result;
    result.slices = 2;
    result.evaluate = [this](const Plan& plan, int slice) {
      const std::string key = std::to_string(slice) + ":" + to_json(plan);
      ++evaluations[key];
      const double exact = kl(candidate_of(plan));
      Random random(std::hash<std::string>{}(key));
      const double seen = exact * std::exp(slice == 0 ? noise * random.normal() : 0);
      return SliceScore{seen, seen, std::exp(-seen), slice == 0 ? 1000 : 3000};
    };
    return result;
  }
};

/// `layers` layers of an attention (3 matrices) and an MLP (2), in `groups` depth groups, stored as f16, with two
/// smaller types.
inline Synthetic make_synthetic(int layers, int groups, uint64_t seed) {
  Synthetic model;
  Random random(seed);
  const char* kinds[] = {"attn_q", "attn_k", "attn_output", "ffn_up", "ffn_down"};
  const int64_t sizes[] = {4096, 2048, 4096, 16384, 16384};
  for (int layer = 0; layer < layers; ++layer) {
    for (const auto kind : {DropPart::Kind::kAttention, DropPart::Kind::kMlp}) {
      const double cost = 0.02 * std::exp(1.2 * random.normal()) * (kind == DropPart::Kind::kMlp ? 4 : 1);
      model.space.parts.push_back({{kind, layer}, cost * std::exp(0.5 * random.normal()), 256});
      model.part_cost.push_back(cost);
    }
  }
  for (int kind = 0; kind < 5; ++kind) {
    for (int group = 0; group < groups; ++group) {
      SearchSpace::Unit unit;
      unit.tensor = kinds[kind];
      unit.first_layer = group * layers / groups, unit.last_layer = (group + 1) * layers / groups - 1;
      unit.options = {std::nullopt, DType::kQ8_0, DType::kQ4_0};
      unit.error = {0, 2e-5, 6e-3};
      const double cost = 0.005 * std::exp(1.0 * random.normal());
      model.unit_cost.push_back({0, cost / 200, cost});
      const int index = static_cast<int>(model.space.units.size());
      for (int layer = unit.first_layer; layer <= unit.last_layer; ++layer) {
        SearchSpace::Weight weight{index, 2 * layer + (kind >= 3), sizes[kind], {}};
        weight.bytes = {sizes[kind] * 2, sizes[kind] / 32 * 34, sizes[kind] / 32 * 18};
        model.space.weights.push_back(std::move(weight));
      }
      model.space.units.push_back(std::move(unit));
    }
  }
  model.space.fixed_bytes = 10000;
  return model;
}

}  // namespace pare::test
