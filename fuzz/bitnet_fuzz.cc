// A quantization_config and a tensor as a folder, I2_S or blocks of a ternary type would hold it: refused with one
// line, or ternary weights that are the same in every ternary type and in a folder's packing.
// covers: src/model/bitnet_folder.cc src/model/ternary.cc
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "model/bitnet_folder.h"
#include "model/ternary.h"

namespace {

using namespace pare;

/// Hands out what the input starts with, then zeros.
struct Input {
  std::span<const std::byte> bytes;
  uint8_t byte() {
    if (bytes.empty()) return 0;
    const auto first = static_cast<uint8_t>(bytes[0]);
    bytes = bytes.subspan(1);
    return first;
  }
  /// `size` bytes: the rest over and over.
  std::vector<std::byte> fill(size_t size) const {
    std::vector<std::byte> filled(size);
    for (size_t i = 0; i < size && !bytes.empty(); ++i) filled[i] = bytes[i % bytes.size()];
    return filled;
  }
};

std::string text_line(Input& input) {
  std::string line;
  while (!input.bytes.empty()) {
    const auto c = static_cast<char>(input.byte());
    if (c == '\n') break;
    line += c;
  }
  return line;
}

/// What must hold of a weight that was accepted; making it may still refuse its codes.
void check(const WeightTensor& weight) {
  std::vector<std::byte> storage;
  const TensorView view = weight.read(storage);
  const TernaryCodes ternary = read_ternary(weight, view);
  if (ternary.scale != weight.scale) std::abort();
  for (const DType type : {DType::kTQ1_0, DType::kTQ2_0, DType::kQ2_0}) {
    if (weight.shape.columns() % info(type).block_size != 0) continue;
    const auto bytes = to_ternary_type(view, type);
    const TernaryCodes again = read_ternary(weight, {type, weight.shape, bytes});
    if (again.codes != ternary.codes || again.scale != ternary.scale) std::abort();
    if (ternary_of_values(view, type, weight.name) != bytes) std::abort();
  }
  const int64_t rows = weight.shape[0], columns = weight.shape[1];
  if (rows % 4 != 0) return;
  const auto packed = pack_bitnet(ternary.codes, rows, columns);
  for (int64_t i = 0; i < rows * columns; ++i) {
    const int64_t part = rows / 4 * columns;
    if ((static_cast<int>(packed[static_cast<size_t>(i % part)]) >> 2 * (i / part) & 3) !=
        ternary.codes[static_cast<size_t>(i)])
      std::abort();
  }
}

WeightTensor named(int64_t rows, int64_t columns) {
  WeightTensor weight;
  weight.id = {WeightKind::kUp, 0};
  weight.name = "model.layers.0.mlp.up_proj.weight";
  weight.shape = Shape{rows, columns};
  return weight;
}

/// Blocks from elsewhere: what is taken for ternary means what it means as values, and survives every ternary type.
void try_blocks(Input& input, int64_t rows) {
  constexpr DType kTypes[] = {DType::kTQ1_0, DType::kTQ2_0, DType::kQ2_0};
  WeightTensor weight = named(rows, 512);
  weight.type = kTypes[input.byte() % std::size(kTypes)];
  const auto count = weight.shape.count();
  const auto bytes = input.fill(static_cast<size_t>(info(weight.type).bytes(count)));
  const TensorView view{weight.type, weight.shape, bytes};
  const TernaryCodes ternary = read_ternary(weight, view);
  std::vector<float> values(static_cast<size_t>(count));
  info(weight.type).decode(bytes.data(), values.data(), count);
  for (size_t k = 0; k < values.size(); ++k) {
    if (values[k] != static_cast<float>(ternary.codes[k] - 1) * ternary.scale) std::abort();
  }
  for (const DType type : kTypes) {
    const auto other = to_ternary_type(view, type);
    const TernaryCodes again = read_ternary(weight, {type, weight.shape, other});
    if (again.codes != ternary.codes || again.scale != ternary.scale) std::abort();
  }
}

void try_i2s(Input input, int64_t rows, int64_t columns) {
  auto bytes = input.fill(static_cast<size_t>(rows * columns / 4 + 32));
  for (const auto layout : {I2sLayout::kX86, I2sLayout::kArm}) {
    if (rows * columns % i2s_block_columns(layout) == 0) check(i2s_weight(named(rows, columns), bytes, layout));
  }
}

void try_folder(Input& input, uint8_t kind, int64_t rows, int64_t columns) {
  const std::string line = text_line(input);
  const auto packing = read_bitnet_packing(parse_json(line, "input"), "input");
  if (!packing) return;
  WeightTensor weight = named(rows, columns);
  if (!packing->converts(sibling_name(weight.name, ""))) return;
  SafetensorsTensor tensor, scale;
  tensor.name = weight.name;
  scale.name = sibling_name(weight.name, ".weight_scale");
  const bool packed = kind % 4 == 0;
  tensor.view.type = kind % 4 == 1 ? DType::kBF16 : DType::kF32;
  tensor.foreign_type = packed ? "U8" : kind % 4 == 3 ? "I8" : "";
  tensor.view.shape = packed ? Shape{rows / 4, columns} : Shape{rows, columns};
  const int value_bytes = packed || kind % 4 == 3 ? 1 : info(tensor.view.type).block_bytes;
  const auto bytes = input.fill(static_cast<size_t>(tensor.view.shape.count() * value_bytes));
  tensor.view.bytes = bytes;
  const auto number = input.fill(4);
  scale.view = {DType::kF32, Shape{kind & 64 ? 2 : 1}, number};
  check(bitnet_weight(*packing, std::move(weight), tensor, kind & 128 ? &scale : nullptr));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input{std::as_bytes(std::span(data, size))};
  const uint8_t kind = input.byte();
  const int64_t rows = 1 + input.byte() % 9, columns = 32 * (1 + input.byte() % 16);
  try {
    if (kind & 16) {
      try_blocks(input, rows);
    } else if (kind & 32) {
      try_i2s(input, rows, columns);
    } else {
      try_folder(input, kind, rows, columns);
    }
  } catch (const Error&) {
  }
  ModelConfig config;
  config.layers.resize(1 + kind % 2);
  config.layers[0].mlp = MlpConfig{};
  set_activations(config, find_activations(kind % 2 ? "int8" : "none").value());
  if (quantizes_activations(config) != (kind % 2 == 1)) std::abort();
  if (is_ternary_weight(config, named(rows, columns)) || find_activations("int4")) std::abort();
  return 0;
}
