#include "shrink/space.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/cpu.h"
#include "base/error.h"
#include "kernels/matmul.h"

namespace pare {
namespace {

constexpr int64_t kSampledRows = 64;  // of a matrix, to measure what rounding does to it

bool has_kernel(DType type) {
  const auto rows = kernels::kernel_table();
  return std::any_of(rows.begin(), rows.end(), [&](const kernels::KernelRow& row) {
    return row.source == type && (row.required & cpu_features()) == row.required;
  });
}

/// Whether a weight may be stored in a type: smaller than it is now, and of blocks that divide its rows.
bool fits(const WeightTensor& weight, const DTypeInfo& type) {
  return type.bits_per_value() < info(weight.type).bits_per_value() && weight.shape.columns() % type.block_size == 0;
}

struct Squares {
  double error = 0, values = 0;
};

/// What encoding some evenly spread rows of a weight loses.
Squares rounding_error(const WeightTensor& weight, const DTypeInfo& type) {
  std::vector<std::byte> storage;
  const TensorView view = weight.read(storage);
  const int64_t rows = view.shape.rows(), columns = view.shape.columns(), sampled = std::min(rows, kSampledRows);
  std::vector<float> before(static_cast<size_t>(columns)), after(before.size());
  std::vector<std::byte> encoded(static_cast<size_t>(type.bytes(columns)));
  Squares squares;
  for (int64_t i = 0; i < sampled; ++i) {
    info(view.type).decode(view.row(i * rows / sampled), before.data(), columns);
    type.encode(before.data(), encoded.data(), columns);
    type.decode(encoded.data(), after.data(), columns);
    for (size_t k = 0; k < before.size(); ++k) {
      const double value = before[k], error = double{after[k]} - value;
      squares.error += error * error, squares.values += value * value;
    }
  }
  return squares;
}

/// One unit being built: its weights, and for each type what it costs.
struct UnitWeights {
  const WeightKindInfo* kind = nullptr;
  int first_layer = -1, last_layer = -1;
  std::vector<const WeightTensor*> weights;
};

std::vector<UnitWeights> group_weights(const Checkpoint& base, int depth_groups) {
  const auto layers = static_cast<int>(base.config.layers.size());
  const int groups = std::clamp(depth_groups, 1, std::max(1, layers));
  std::vector<UnitWeights> units;
  for (const WeightKindInfo& kind : all_weight_kinds()) {
    if (!kind.matrix) continue;
    for (int group = 0; group < (kind.in_layer ? groups : 1); ++group) {
      UnitWeights unit{&kind, -1, -1, {}};
      if (kind.in_layer)
        unit.first_layer = group * layers / groups, unit.last_layer = (group + 1) * layers / groups - 1;
      for (int layer = unit.first_layer; layer <= unit.last_layer; ++layer) {
        if (const WeightTensor* weight = base.find({kind.kind, layer})) unit.weights.push_back(weight);
      }
      if (!unit.weights.empty()) units.push_back(std::move(unit));
    }
  }
  return units;
}

std::vector<const DTypeInfo*> usable_types(const UnitWeights& unit) {
  std::vector<const DTypeInfo*> types;
  for (const DTypeInfo& type : all_dtypes()) {
    const bool fits_all = std::all_of(unit.weights.begin(), unit.weights.end(),
                                      [&](const WeightTensor* weight) { return fits(*weight, type); });
    if (fits_all && has_kernel(type.type)) types.push_back(&type);
  }
  return types;
}

/// A unit's types with what they lose, without those that another beats in size and error.
void add_options(SearchSpace::Unit& unit, const std::vector<const DTypeInfo*>& types,
                 const std::vector<double>& errors) {
  std::vector<size_t> order;
  for (size_t i = 0; i < types.size(); ++i) {
    const double bits = types[i]->bits_per_value();
    bool beaten = false;
    for (size_t k = 0; k < types.size() && !beaten; ++k) {
      const double other = types[k]->bits_per_value();
      const bool better = other < bits || errors[k] < errors[i] || (errors[k] == errors[i] && k < i);
      beaten = k != i && other <= bits && errors[k] <= errors[i] && better;
    }
    if (!beaten) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return types[a]->bits_per_value() > types[b]->bits_per_value(); });
  for (const size_t i : order) {
    unit.options.emplace_back(types[i]->type);
    unit.error.push_back(errors[i]);
  }
}

std::vector<SearchSpace::Unit> make_units(const std::vector<UnitWeights>& grouped, ThreadPool& pool) {
  std::vector<SearchSpace::Unit> units(grouped.size());
  pool.parallel_for(static_cast<int64_t>(grouped.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const std::vector<const DTypeInfo*> types = usable_types(grouped[i]);
      std::vector<double> errors;
      for (const DTypeInfo* type : types) {
        Squares squares;
        for (const WeightTensor* weight : grouped[i].weights) {
          const Squares one = rounding_error(*weight, *type);
          squares.error += one.error, squares.values += one.values;
        }
        errors.push_back(squares.values > 0 ? squares.error / squares.values : 0);
      }
      units[i].tensor = grouped[i].kind->name;
      units[i].first_layer = grouped[i].first_layer, units[i].last_layer = grouped[i].last_layer;
      add_options(units[i], types, errors);
    }
  });
  return units;
}

Plan plan_that_drops(const DropPart& part) {
  Plan plan;
  (part.kind == DropPart::Kind::kAttention ? plan.drop_attention : plan.drop_mlp) = {part.layer};
  return plan;
}

/// What the file loses with a part beyond its matrices.
int64_t bytes_beside_matrices(const Checkpoint& base, int64_t base_file_bytes, const DropPart& part,
                              GgufReader reader) {
  const Checkpoint without = apply_plan(base, plan_that_drops(part));
  int64_t matrices = 0;
  for (const WeightTensor& weight : base.weights) {
    if (info(weight.id.kind).matrix && !without.find(weight.id)) matrices += weight.bytes();
  }
  return base_file_bytes - gguf_file_bytes(without, reader) - matrices;
}

std::vector<SearchSpace::Part> make_parts(const Checkpoint& base, const Redundancy& redundancy, GgufReader reader) {
  using Kind = DropPart::Kind;
  const int64_t base_bytes = gguf_file_bytes(base, reader);
  std::vector<SearchSpace::Part> parts;
  for (const DropPart& part : parts_by_importance(redundancy, {Kind::kAttention, Kind::kMlp})) {
    const LayerImportance& layer = redundancy.layers[static_cast<size_t>(part.layer)];
    const std::optional<double>& importance = part.kind == Kind::kAttention ? layer.attention : layer.mlp;
    parts.push_back({part, importance.value_or(0), bytes_beside_matrices(base, base_bytes, part, reader)});
  }
  return parts;
}

}  // namespace

SearchSpace make_space(const Checkpoint& base, const Redundancy& redundancy, int depth_groups, ThreadPool& pool,
                       GgufReader reader) {
  SearchSpace space;
  const std::vector<UnitWeights> grouped = group_weights(base, depth_groups);
  space.units = make_units(grouped, pool);
  space.parts = make_parts(base, redundancy, reader);
  std::map<std::pair<bool, int>, int> part_of;  // (is attention, layer)
  for (size_t i = 0; i < space.parts.size(); ++i) {
    const DropPart& part = space.parts[i].part;
    part_of[{part.kind == DropPart::Kind::kAttention, part.layer}] = static_cast<int>(i);
  }
  space.fixed_bytes = gguf_file_bytes(base, reader);
  for (const SearchSpace::Part& part : space.parts) space.fixed_bytes -= part.other_bytes;
  for (size_t u = 0; u < grouped.size(); ++u) {
    for (const WeightTensor* weight : grouped[u].weights) {
      SearchSpace::Weight entry{static_cast<int>(u), -1, weight->shape.count(), {}};
      const auto part = part_of.find({weight->id.kind < WeightKind::kMlpNorm, weight->id.layer});
      if (part != part_of.end()) entry.part = part->second;
      for (const std::optional<DType>& type : space.units[u].options) {
        entry.bytes.push_back(type ? info(*type).bytes(weight->shape.count()) : weight->bytes());
      }
      space.fixed_bytes -= weight->bytes();
      space.weights.push_back(std::move(entry));
    }
  }
  return space;
}

Candidate SearchSpace::unchanged() const {
  return {std::vector<uint8_t>(units.size(), 0), std::vector<uint8_t>(parts.size(), 0)};
}

Candidate SearchSpace::uniform(DType type) const {
  Candidate candidate = unchanged();
  const double bits = info(type).bits_per_value();
  for (size_t u = 0; u < units.size(); ++u) {
    for (size_t o = 1; o < units[u].options.size(); ++o) {
      if (info(*units[u].options[o]).bits_per_value() >= bits) candidate.option[u] = static_cast<uint8_t>(o);
    }
  }
  return candidate;
}

std::vector<DType> SearchSpace::types() const {
  std::set<DType> present;
  for (const Unit& unit : units) {
    for (size_t o = 1; o < unit.options.size(); ++o) present.insert(*unit.options[o]);
  }
  std::vector<DType> types(present.begin(), present.end());
  std::stable_sort(types.begin(), types.end(),
                   [](DType a, DType b) { return info(a).bits_per_value() > info(b).bits_per_value(); });
  return types;
}

Candidate SearchSpace::canonical(Candidate candidate) const {
  std::vector<uint8_t> alive(units.size(), 0);
  for (const Weight& weight : weights) {
    if (weight.part < 0 || !candidate.dropped[static_cast<size_t>(weight.part)]) {
      alive[static_cast<size_t>(weight.unit)] = 1;
    }
  }
  for (size_t u = 0; u < units.size(); ++u) {
    if (!alive[u]) candidate.option[u] = 0;
  }
  return candidate;
}

int64_t SearchSpace::bytes(const Candidate& candidate) const {
  int64_t total = fixed_bytes;
  for (size_t p = 0; p < parts.size(); ++p) {
    if (!candidate.dropped[p]) total += parts[p].other_bytes;
  }
  for (const Weight& weight : weights) {
    if (weight.part >= 0 && candidate.dropped[static_cast<size_t>(weight.part)]) continue;
    total += weight.bytes[candidate.option[static_cast<size_t>(weight.unit)]];
  }
  return total;
}

Plan SearchSpace::to_plan(const Candidate& candidate) const {
  Plan plan;
  for (size_t p = 0; p < parts.size(); ++p) {
    if (!candidate.dropped[p]) continue;
    const DropPart& part = parts[p].part;
    (part.kind == DropPart::Kind::kAttention ? plan.drop_attention : plan.drop_mlp).push_back(part.layer);
  }
  std::sort(plan.drop_attention.begin(), plan.drop_attention.end());
  std::sort(plan.drop_mlp.begin(), plan.drop_mlp.end());
  const auto type_of = [&](size_t unit) { return units[unit].options[candidate.option[unit]]; };
  bool same = !units.empty() && type_of(0).has_value();
  for (size_t u = 1; u < units.size() && same; ++u) same = type_of(u) == type_of(0);
  if (same) {
    plan.store.push_back({"*", 0, -1, *type_of(0)});
    return plan;
  }
  for (size_t u = 0; u < units.size();) {
    size_t last = u;  // units of a kind stand in order of depth
    while (last + 1 < units.size() && units[last + 1].tensor == units[u].tensor && type_of(last + 1) == type_of(u))
      ++last;
    const bool from_first = u == 0 || units[u - 1].tensor != units[u].tensor;
    const bool to_last = last + 1 == units.size() || units[last + 1].tensor != units[u].tensor;
    if (type_of(u)) {
      StoreRule rule{units[u].tensor, 0, -1, *type_of(u)};
      if (!from_first || !to_last) rule.first_layer = units[u].first_layer, rule.last_layer = units[last].last_layer;
      plan.store.push_back(std::move(rule));
    }
    u = last + 1;
  }
  return plan;
}

int SearchSpace::drops(const Candidate& candidate) const {
  return static_cast<int>(std::count(candidate.dropped.begin(), candidate.dropped.end(), 1));
}

}  // namespace pare
