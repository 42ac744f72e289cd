#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "kernels/ternary.h"
#include "model/checkpoint.h"
#include "model/ternary.h"

namespace pare {
namespace {

int64_t count_not_finite(std::span<const float> values) {
  return std::count_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
}

/// The values of a weight, its scale in them, in another type.
std::vector<std::byte> encode_values(const WeightTensor& source, const TensorView& view, DType type) {
  const int64_t rows = view.shape.rows(), columns = view.shape.columns();
  const DTypeInfo &from = info(view.type), &to = info(type);
  std::vector<std::byte> bytes(static_cast<size_t>(to.bytes(view.shape.count())));
  std::vector<float> row(static_cast<size_t>(columns));
  int64_t bad = 0;
  for (int64_t r = 0; r < rows; ++r) {
    from.decode(view.row(r), row.data(), columns);
    for (float& value : row) value *= source.scale;
    bad += count_not_finite(row);
    to.encode(row.data(), bytes.data() + r * to.bytes(columns), columns);
  }
  if (bad > 0) fail("{}: {} of its {} values are NaN or infinite", source.name, bad, view.shape.count());
  return bytes;
}

/// The weight in another type: decoded and encoded when it is read. Ternary weights stay what they are in a ternary
/// type, and what a module that quantizes its inputs stores in one must be ternary.
WeightTensor in_type(const WeightTensor& source, DType type, bool quantized_inputs) {
  const bool keeps_codes = kernels::is_ternary(source.type) && kernels::is_ternary(type);
  const bool must_be_ternary = quantized_inputs && kernels::is_ternary(type);
  WeightTensor result = source;
  result.type = type;
  if (!keeps_codes && !must_be_ternary) result.scale = 1;
  result.mapped = {};
  result.fill_codes = nullptr;
  result.made_from = {};
  result.key = source.key.empty() ? "" : source.key + "@" + info(type).name;
  result.owner = nullptr;  // the closure's copy of the source keeps it
  result.make = [source, type, keeps_codes, must_be_ternary] {
    std::vector<std::byte> storage;
    const TensorView view = source.read(storage);
    if (keeps_codes) return to_ternary_type(view, type);
    if (must_be_ternary) return ternary_of_values(view, type, source.name);
    return encode_values(source, view, type);
  };
  return result;
}

/// The type that a weight gets when a plan asks for `wanted`: that one, or where its blocks do not divide the rows one
/// that fits and loses nothing worth naming.
DType fitting_type(const WeightTensor& weight, DType wanted, std::map<std::string, int>& misfits) {
  const DType type =
      fitting_dtype(wanted, weight.shape.columns()).value_or(weight.type == DType::kF32 ? DType::kF16 : weight.type);
  if (type != wanted) {
    ++misfits[fmt::format("{}: rows of {} values do not fit {} blocks of {}, stored as {}", info(weight.id.kind).name,
                          weight.shape.columns(), info(wanted).name, info(wanted).block_size, info(type).name)];
  }
  return type;
}

void check_drop(const std::vector<int>& layers, const Checkpoint& base, bool attention) {
  const char* what = attention ? "attention" : "MLP";
  const auto count = static_cast<int>(base.config.layers.size());
  for (int layer : layers) {
    if (layer < 0 || layer >= count) {
      fail("{}: the plan drops the {} of layer {}, but layers go from 0 to {}", base.path.string(), what, layer,
           count - 1);
    }
    const LayerConfig& config = base.config.layers[static_cast<size_t>(layer)];
    if (attention ? !config.attention.has_value() : !config.mlp.has_value()) {
      fail("{}: the plan drops the {} of layer {}, which is gone already", base.path.string(), what, layer);
    }
  }
}

/// The plan in the layer numbers of the model that the base was made from.
Plan in_original_layers(Plan plan, const std::vector<int>& original) {
  const auto map = [&](int layer) { return original[static_cast<size_t>(layer)]; };
  for (int& layer : plan.drop_attention) layer = map(layer);
  for (int& layer : plan.drop_mlp) layer = map(layer);
  const int last = static_cast<int>(original.size()) - 1;
  for (StoreRule& rule : plan.store) {
    if (rule.first_layer > 0 && rule.first_layer <= last) rule.first_layer = map(rule.first_layer);
    if (rule.last_layer >= 0 && rule.last_layer <= last) rule.last_layer = map(rule.last_layer);
  }
  return plan;
}

}  // namespace

Checkpoint apply_plan(const Checkpoint& base, const Plan& plan, std::vector<std::string>* notes) {
  check_drop(plan.drop_attention, base, true);
  check_drop(plan.drop_mlp, base, false);
  for (const StoreRule& rule : plan.store) {
    const WeightKindInfo* kind = find_weight_kind(rule.tensor);
    if (rule.tensor != "*" && (!kind || !kind->matrix)) {
      std::string known;
      for (const WeightKindInfo& row : all_weight_kinds()) {
        if (row.matrix) known += std::string(", ") + row.name;
      }
      fail("the plan stores \"{}\"; expected *{}", rule.tensor, known);
    }
  }
  Checkpoint result = base;
  result.weights.clear();
  for (int layer : plan.drop_attention) result.config.layers[static_cast<size_t>(layer)].attention.reset();
  for (int layer : plan.drop_mlp) result.config.layers[static_cast<size_t>(layer)].mlp.reset();
  std::map<std::string, int> misfits;
  for (const WeightTensor& weight : base.weights) {
    if (!expected_shape(result.config, weight.id)) continue;
    const WeightKindInfo& kind = info(weight.id.kind);
    const auto wanted = kind.matrix ? plan.type_of(kind.name, weight.id.layer) : std::nullopt;
    const DType type = wanted ? fitting_type(weight, *wanted, misfits) : weight.type;
    result.weights.push_back(type == weight.type ? weight
                                                 : in_type(weight, type, quantizes_inputs(base.config, weight.id)));
  }
  result.plan = merge(base.plan, in_original_layers(plan, base.original_layers));
  if (result.source.empty()) result.source = base.name;
  if (notes) {
    for (const auto& [text, count] : misfits) notes->push_back(fmt::format("{} ({} tensors)", text, count));
  }
  return result;
}

void check_finite(const Checkpoint& checkpoint, Progress& progress) {
  progress.start("checking weights", "tensors", static_cast<int64_t>(checkpoint.weights.size()));
  int64_t done = 0;
  std::vector<std::byte> storage;
  std::vector<float> row;
  for (const WeightTensor& weight : checkpoint.weights) {
    const TensorView view = weight.read(storage);
    const int64_t columns = view.shape.columns();
    row.resize(static_cast<size_t>(columns));
    int64_t bad = std::isfinite(weight.scale) ? 0 : 1;
    for (int64_t r = 0; r < view.shape.rows(); ++r) {
      info(view.type).decode(view.row(r), row.data(), columns);
      bad += count_not_finite(row);
    }
    if (bad > 0) {
      fail("{}: tensor {} holds {} NaN or infinite values of {}", checkpoint.path.string(), weight.name, bad,
           view.shape.count());
    }
    progress.update(++done);
  }
  progress.finish();
}

}  // namespace pare
