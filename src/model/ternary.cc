#include "model/ternary.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "formats/gguf.h"
#include "kernels/ternary.h"
#include "tensor/block_parts.h"

namespace pare {
namespace {

std::vector<std::byte> encode_unit(DType type, const std::vector<uint8_t>& codes) {
  const auto count = static_cast<int64_t>(codes.size());
  std::vector<std::byte> bytes(static_cast<size_t>(info(type).bytes(count)));
  encode_ternary_codes(type, codes.data(), kUnitScale, bytes.data(), count);
  return bytes;
}

bool is_zero(uint16_t scale) { return f16_to_float(scale) == 0; }

/// The first of some scales that is not 0.
uint16_t first_scale(std::span<const uint16_t> scales, uint16_t if_none) {
  const auto first = std::find_if_not(scales.begin(), scales.end(), is_zero);
  return first == scales.end() ? if_none : *first;
}

/// Whether values of that scale lose nothing under another: zeros have none of their own.
bool serves(uint16_t other, uint16_t scale) { return scale == other || is_zero(scale); }

/// Some values of a matrix in a ternary type: codes, and the float16 scale of each; where that is 0, codes are 1.
struct Recoder {
  std::vector<uint8_t> codes;
  std::vector<uint16_t> scales;

  explicit Recoder(const TensorView& view)
      : codes(static_cast<size_t>(view.shape.count())), scales(static_cast<size_t>(view.shape.count())) {
    const BlockForm& form = *find_block_form(view.type);
    BlockParts parts;
    const std::byte* block = view.bytes.data();
    for (size_t k = 0; k < codes.size(); k += static_cast<size_t>(form.columns), block += info(view.type).block_bytes) {
      kernels::split_ternary(form, block, parts);
      std::copy_n(parts.codes, form.columns, codes.data() + k);
      std::fill_n(scales.data() + k, form.columns, parts.d);
    }
  }
};

}  // namespace

void check_ternary_codes(std::span<const uint8_t> codes, int64_t first_row, int64_t columns, const std::string& name) {
  if (kernels::largest_code(codes.data(), static_cast<int64_t>(codes.size())) <= 2) return;
  const int64_t at = std::find_if(codes.begin(), codes.end(), [](uint8_t code) { return code > 2; }) - codes.begin();
  fail("tensor {}: code {} in row {}, column {}; expected 0, 1 or 2 (for -1, 0 and 1)", name,
       codes[static_cast<size_t>(at)], first_row + at / columns, at % columns);
}

void check_ternary_scale(float scale, const std::string& name) {
  if (!(scale > 0) || !std::isfinite(scale)) {
    fail("tensor {}: its scale is {}, expected a positive number", name, scale);
  }
}

WeightTensor ternary_weight(WeightTensor weight, float scale, std::span<const std::byte> from, FillCodes fill) {
  const int64_t columns = weight.shape.columns();
  check_ternary_scale(scale, weight.name);
  const auto types = {DType::kTQ2_0, DType::kQ2_0};
  const auto* type =
      std::find_if(types.begin(), types.end(), [&](DType row) { return columns % info(row).block_size == 0; });
  if (type == types.end()) {
    fail("tensor {}: rows of {} ternary weights, expected a multiple of {} or {} (the blocks of tq2_0 and q2_0)",
         weight.name, columns, info(DType::kTQ2_0).block_size, info(DType::kQ2_0).block_size);
  }
  weight.type = *type;
  weight.scale = scale;
  weight.mapped = {};
  if (!weight.key.empty()) weight.key += std::string("@") + info(*type).name;
  weight.fill_codes = [owner = std::move(weight.owner), fill = std::move(fill)](
                          int64_t begin, int64_t end, uint8_t* codes) { fill(begin, end, codes); };
  weight.made_from = from;
  weight.make = [name = weight.name, shape = weight.shape, type = *type, fill = weight.fill_codes] {
    std::vector<uint8_t> codes(static_cast<size_t>(shape.count()));
    fill(0, shape.rows(), codes.data());
    check_ternary_codes(codes, 0, shape.columns(), name);
    return encode_unit(type, codes);
  };
  weight.owner = nullptr;  // the closures keep it
  return weight;
}

WeightTensor i2s_weight(WeightTensor weight, std::span<const std::byte> bytes, I2sLayout layout) {
  const int64_t columns = weight.shape.columns(), count = weight.shape.count(), block = i2s_block_columns(layout);
  if (columns % block != 0) {
    fail("tensor {}: rows of {} weights, expected a multiple of {} in I2_S's layout of {} machines", weight.name,
         columns, block, i2s_layout_name(layout));
  }
  float scale;
  std::memcpy(&scale, bytes.data() + count / 4, sizeof scale);
  return ternary_weight(std::move(weight), scale, bytes,
                        [bytes, layout, columns](int64_t begin, int64_t end, uint8_t* codes) {
                          unpack_i2s(layout, bytes.data() + begin * columns / 4, codes, (end - begin) * columns);
                        });
}

bool quantizes_inputs(const ModelConfig& config, const WeightId& id) {
  if (id.layer < 0) return false;
  const LayerConfig& layer = config.layers[static_cast<size_t>(id.layer)];
  const LinearConfig& linear = id.kind >= WeightKind::kMlpNorm ? layer.mlp->linear : layer.attention->linear;
  return linear.activations != ActivationQuantization::kNone;
}

bool is_ternary_weight(const ModelConfig& config, const WeightTensor& weight) {
  return info(weight.id.kind).matrix && kernels::is_ternary(weight.type) && quantizes_inputs(config, weight.id);
}

TernaryCodes read_ternary(const WeightTensor& weight, const TensorView& view) {
  const Recoder parts(view);
  check_ternary_codes(parts.codes, 0, view.shape.columns(), weight.name);
  const uint16_t scale = first_scale(parts.scales, kUnitScale);  // all zeros: any will do
  const auto other =
      std::find_if(parts.scales.begin(), parts.scales.end(), [&](uint16_t s) { return !serves(scale, s); });
  if (other != parts.scales.end()) {
    fail("tensor {}: row {} has a block whose scale differs from those before; ternary weights have one for all",
         weight.name, (other - parts.scales.begin()) / view.shape.columns());
  }
  const float whole = weight.scale * f16_to_float(scale);
  check_ternary_scale(whole, weight.name);
  return {parts.codes, whole};
}

std::vector<std::byte> to_ternary_type(const TensorView& from, DType type) {
  const DTypeInfo& to = info(type);
  const auto count = from.shape.count();
  const Recoder parts(from);
  std::vector<std::byte> bytes(static_cast<size_t>(to.bytes(count)));
  std::vector<float> values(static_cast<size_t>(to.block_size));
  std::byte* block = bytes.data();
  for (int64_t k = 0; k < count; k += to.block_size, block += to.block_bytes) {
    const uint8_t* codes = parts.codes.data() + k;
    const uint16_t* scales = parts.scales.data() + k;
    const bool ternary = std::all_of(codes, codes + to.block_size, [](uint8_t code) { return code <= 2; });
    const uint16_t scale = first_scale({scales, values.size()}, 0);
    if (ternary && std::all_of(scales, scales + to.block_size, [&](uint16_t s) { return serves(scale, s); })) {
      encode_ternary_codes(type, codes, scale, block, to.block_size);
      continue;
    }
    for (size_t i = 0; i < values.size(); ++i) values[i] = f16_to_float(scales[i]) * static_cast<float>(codes[i] - 1);
    to.encode(values.data(), block, to.block_size);
  }
  return bytes;
}

std::vector<std::byte> ternary_of_values(const TensorView& from, DType type, const std::string& name) {
  const int64_t rows = from.shape.rows(), columns = from.shape.columns();
  std::vector<uint8_t> codes(static_cast<size_t>(from.shape.count()));
  std::vector<float> row(static_cast<size_t>(columns));
  for (int64_t r = 0; r < rows; ++r) {
    info(from.type).decode(from.row(r), row.data(), columns);
    for (int64_t k = 0; k < columns; ++k) {
      const float value = row[static_cast<size_t>(k)];
      if (value != -1 && value != 0 && value != 1) {
        fail(
            "tensor {}: {} in row {}, column {}; expected -1, 0 or 1: what is not ternary any more cannot be stored "
            "as {}",
            name, value, r, k, info(type).name);
      }
      codes[static_cast<size_t>(r * columns + k)] = static_cast<uint8_t>(static_cast<int>(value) + 1);
    }
  }
  return encode_unit(type, codes);
}

std::string sibling_name(std::string_view weight, std::string_view suffix) {
  constexpr std::string_view kWeight = ".weight";
  if (weight.ends_with(kWeight)) weight.remove_suffix(kWeight.size());
  return std::string(weight) + std::string(suffix);
}

const char* activations_name(ActivationQuantization activations) {
  return activations == ActivationQuantization::kInt8Row ? "int8" : "none";
}

std::optional<ActivationQuantization> find_activations(std::string_view name) {
  for (const auto activations : {ActivationQuantization::kNone, ActivationQuantization::kInt8Row}) {
    if (name == activations_name(activations)) return activations;
  }
  return std::nullopt;
}

void set_activations(ModelConfig& config, ActivationQuantization activations) {
  for (LayerConfig& layer : config.layers) {
    if (layer.attention) layer.attention->linear.activations = activations;
    if (layer.mlp) layer.mlp->linear.activations = activations;
  }
}

bool quantizes_activations(const ModelConfig& config) {
  return std::any_of(config.layers.begin(), config.layers.end(), [](const LayerConfig& layer) {
    constexpr auto kNone = ActivationQuantization::kNone;
    return (layer.attention && layer.attention->linear.activations != kNone) ||
           (layer.mlp && layer.mlp->linear.activations != kNone);
  });
}

}  // namespace pare
