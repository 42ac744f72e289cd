#include "redundancy/choose.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/error.h"

namespace pare {
namespace {

using Kind = DropPart::Kind;

const char* name(Kind kind) { return kind == Kind::kAttention ? "attention" : kind == Kind::kMlp ? "MLP" : "block"; }

/// What a part scored, or nothing if it is absent or the plan drops it.
std::optional<double> score(const LayerImportance& layer, int index, Kind kind, const Plan& plan) {
  const bool attention = layer.attention && !plan.drops_attention(index);
  const bool mlp = layer.mlp && !plan.drops_mlp(index);
  switch (kind) {
    case Kind::kAttention:
      return attention ? layer.attention : std::nullopt;
    case Kind::kMlp:
      return mlp ? layer.mlp : std::nullopt;
    case Kind::kBlock:
      return attention || mlp ? std::optional(layer.block) : std::nullopt;
  }
  return std::nullopt;
}

void insert_sorted(std::vector<int>& layers, int layer) {
  const auto at = std::lower_bound(layers.begin(), layers.end(), layer);
  if (at == layers.end() || *at != layer) layers.insert(at, layer);
}

}  // namespace

std::string DropPart::to_string() const { return fmt::format("{} {}", name(kind), layer); }

std::vector<DropPhase> phases(const DropRequest& request) {
  std::vector<DropPhase> result;
  const auto add = [&](int count, std::vector<Kind> kinds, const char* what) {
    if (count < 0) fail("cannot drop {} {} parts", count, what);
    if (count > 0) result.push_back({std::move(kinds), count});
  };
  add(request.block, {Kind::kBlock}, "block");
  add(request.attention, {Kind::kAttention}, "attention");
  add(request.mlp, {Kind::kMlp}, "MLP");
  add(request.joint, {Kind::kAttention, Kind::kMlp}, "joint");
  return result;
}

std::vector<DropPart> parts_by_importance(const Redundancy& redundancy, const std::vector<Kind>& kinds,
                                          const Plan& plan) {
  std::vector<std::pair<double, DropPart>> scored;
  for (const Kind kind : kinds) {
    for (size_t i = 0; i < redundancy.layers.size(); ++i) {
      const int layer = static_cast<int>(i);
      const std::optional<double> value = score(redundancy.layers[i], layer, kind, plan);
      if (!value) continue;
      if (!std::isfinite(*value)) fail("the importance of {} {} is not a finite number", name(kind), layer);
      scored.push_back({*value, {kind, layer}});
    }
  }
  std::stable_sort(scored.begin(), scored.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<DropPart> parts;
  for (const auto& [value, part] : scored) parts.push_back(part);
  return parts;
}

Plan with_drop(const Plan& plan, const DropPart& part, const Redundancy& redundancy) {
  Plan result = plan;
  const LayerImportance& layer = redundancy.layers.at(static_cast<size_t>(part.layer));
  if (part.kind != Kind::kMlp && layer.attention) insert_sorted(result.drop_attention, part.layer);
  if (part.kind != Kind::kAttention && layer.mlp) insert_sorted(result.drop_mlp, part.layer);
  return result;
}

Plan choose_drops(const Redundancy& redundancy, const DropRequest& request) {
  Plan plan;
  for (const DropPhase& phase : phases(request)) {
    const std::vector<DropPart> parts = parts_by_importance(redundancy, phase.kinds, plan);
    if (static_cast<size_t>(phase.count) > parts.size()) {
      const std::string what = phase.kinds.size() > 1 ? "attention or MLP" : name(phase.kinds[0]);
      fail("cannot drop {} of {} {} parts", phase.count, parts.size(), what);
    }
    for (int i = 0; i < phase.count; ++i) plan = with_drop(plan, parts[static_cast<size_t>(i)], redundancy);
  }
  return plan;
}

}  // namespace pare
