#include "model/bitnet_folder.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "model/families/config_reader.h"
#include "model/ternary.h"

namespace pare {
namespace {

constexpr int64_t kCodesPerByte = 4;

/// transformers' should_convert_module, for names without regular expressions: whether a name of
/// modules_to_not_convert means this module.
bool means(const std::string& name, std::string_view module) {
  if (module.ends_with(name)) return true;
  return module.starts_with(name) && (name.ends_with('.') || module[name.size()] == '.');
}

std::vector<std::string> read_not_converted(const Json& list, const std::string& where) {
  constexpr const char* kKey = "modules_to_not_convert";
  if (!list.is_array()) fail("{}: {} is not a list of module names", where, kKey);
  std::vector<std::string> names;
  for (const Json& name : list) {
    if (!name.is_string() || name.get_ref<const std::string&>().empty()) {
      fail("{}: {} holds {}, expected module names", where, kKey, name.dump().substr(0, 60));
    }
    names.push_back(name.get<std::string>());
    if (names.back().find_first_of("*+?[](){}|^$\\") != std::string::npos) {
      fail("{}: {} holds the regular expression \"{}\", expected module names only", where, kKey, names.back());
    }
  }
  return names;
}

/// 1bitLLM's first models say nothing: their own code quantizes.
std::optional<BitnetPacking> read_own_code(const Json& config, const std::string& where) {
  const auto names = config.find("architectures");
  const bool own = names != config.end() && names->is_array() && !names->empty() &&
                   names->front() == "BitnetForCausalLM";  // transformers' own class is BitNetForCausalLM
  if (!own) return std::nullopt;
  const ConfigReader reader(config, where);
  const int64_t weights = reader.find_int("weight_bits").value_or(1),
                inputs = reader.find_int("input_bits").value_or(8);
  if (weights != 1 || inputs != 8) {
    fail("{}: weight_bits is {} and input_bits {}, expected 1 (ternary) and 8", where, weights, inputs);
  }
  BitnetPacking packing;
  packing.master = true;
  return packing;
}

float read_scale(const SafetensorsTensor& tensor) {
  if (!tensor.foreign_type.empty() || tensor.view.shape.count() != 1) {
    fail("tensor {} is {} {}, expected one float", tensor.name,
         tensor.foreign_type.empty() ? info(tensor.view.type).safetensors : tensor.foreign_type.c_str(),
         tensor.view.shape.to_string());
  }
  float scale;
  info(tensor.view.type).decode(tensor.view.bytes.data(), &scale, 1);
  return scale;
}

/// s of master weights.
float master_scale(const TensorView& view) {
  std::vector<float> row(static_cast<size_t>(view.shape.columns()));
  double sum = 0;
  for (int64_t r = 0; r < view.shape.rows(); ++r) {
    info(view.type).decode(view.row(r), row.data(), view.shape.columns());
    for (const float value : row) sum += std::fabs(static_cast<double>(value));
  }
  const auto mean = static_cast<float>(sum / static_cast<double>(std::max<int64_t>(1, view.shape.count())));
  // Written so that NaN stays.
  return 1 / (mean < 1e-5f ? 1e-5f : mean);
}

/// w + 1 = clamp(round half to even(W * s), -1, 1) + 1 of float weights; s = 1 and exact: they are ternary already.
FillCodes round_codes(const TensorView& view, float s, bool exact, const std::string& name) {
  return [view, s, exact, name](int64_t begin, int64_t end, uint8_t* codes) {
    const int64_t columns = view.shape.columns();
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t r = begin; r < end; ++r) {
      info(view.type).decode(view.row(r), row.data(), columns);
      for (const float value : row) {
        const float rounded = std::clamp(std::nearbyint(value * s), -1.0f, 1.0f);
        if (std::isnan(rounded) || (exact && rounded != value)) {
          fail("tensor {}: {} in row {}, expected {}", name, value, r, exact ? "-1, 0 or 1" : "a number");
        }
        *codes++ = static_cast<uint8_t>(static_cast<int>(rounded) + 1);
      }
    }
  };
}

/// Row r of so many lies in row r % (rows / 4) of the bytes, in their bits 2 (r / (rows / 4)).
FillCodes unpack(const TensorView& view) {
  return [view](int64_t begin, int64_t end, uint8_t* codes) {
    const int64_t part = view.shape.rows(), columns = view.shape.columns();
    for (int64_t r = begin; r < end; ++r) {
      const auto shift = static_cast<int>(2 * (r / part));
      const std::byte* from = view.bytes.data() + r % part * columns;
      for (int64_t k = 0; k < columns; ++k) *codes++ = static_cast<uint8_t>(static_cast<uint8_t>(from[k]) >> shift & 3);
    }
  };
}

}  // namespace

bool BitnetPacking::converts(std::string_view module) const {
  if (!not_converted) return !means("lm_head", module);
  return std::none_of(not_converted->begin(), not_converted->end(),
                      [&](const std::string& name) { return means(name, module); });
}

std::optional<BitnetPacking> read_bitnet_packing(const Json& config, const std::string& where) {
  const auto found = config.find("quantization_config");
  if (found == config.end() || found->is_null()) return read_own_code(config, where);
  const std::string place = where + ": quantization_config";
  if (!found->is_object()) fail("{} is not an object", place);
  const ConfigReader reader(*found, place);
  const std::string method = reader.find_string("quant_method").value_or("");
  if (method != "bitnet") {
    fail("{}: quant_method is \"{}\": weights quantized by others are not supported in this format, only \"bitnet\"",
         place, method);
  }
  const std::string linear = reader.find_string("linear_class").value_or("bitlinear");
  const std::string mode = reader.find_string("quantization_mode").value_or("offline");
  if (linear != "bitlinear" && linear != "autobitlinear") {
    fail("{}: linear_class is \"{}\", expected bitlinear or autobitlinear", place, linear);
  }
  if (mode != "offline" && mode != "online") {
    fail("{}: quantization_mode is \"{}\", expected offline or online", place, mode);
  }
  if (reader.find_bool("use_rms_norm").value_or(false)) {
    fail("{}: use_rms_norm is true: a norm of its own in front of each linear layer is not supported", place);
  }
  BitnetPacking packing;
  packing.divides = linear == "bitlinear";
  packing.master = linear == "autobitlinear" && mode == "online";
  if (const Json* list = reader.find("modules_to_not_convert"))
    packing.not_converted = read_not_converted(*list, place);
  if (packing.converts("lm_head")) {
    fail("{}: modules_to_not_convert does not list lm_head: a ternary output matrix is not supported", place);
  }
  return packing;
}

WeightTensor bitnet_weight(const BitnetPacking& packing, WeightTensor weight, const SafetensorsTensor& tensor,
                           const SafetensorsTensor* scale) {
  const TensorView& view = tensor.view;
  const bool packed = tensor.foreign_type == "U8";
  if (!packed && !tensor.foreign_type.empty()) {
    fail("tensor {} has type {}, expected U8, F32, F16 or BF16", tensor.name, tensor.foreign_type);
  }
  if (packed ? packing.master : packing.divides) {
    fail("tensor {} has type {}, expected {} by quantization_config", tensor.name,
         packed ? "U8" : info(view.type).safetensors, packing.master ? "F32, F16 or BF16" : "U8");
  }
  const int64_t rows = weight.shape[0], columns = weight.shape[1];
  if (packed && rows % kCodesPerByte != 0) {
    fail("tensor {}: {} rows, expected a multiple of 4 (four lie in a byte)", tensor.name, rows);
  }
  const Shape expected = packed ? Shape{rows / kCodesPerByte, columns} : weight.shape;
  if (!(view.shape == expected)) {
    fail("tensor {} is {}, expected {} by the configuration", tensor.name, view.shape.to_string(),
         expected.to_string());
  }
  if (packing.master) {
    const float s = master_scale(view);
    return ternary_weight(std::move(weight), 1 / s, view.bytes, round_codes(view, s, false, tensor.name));
  }
  if (!scale) fail("tensor {}: its weight_scale is missing", tensor.name);
  const float stored = read_scale(*scale);
  if (!(stored > 0) || !std::isfinite(stored)) {
    fail("tensor {} is {}, expected a positive number", scale->name, stored);
  }
  return ternary_weight(std::move(weight), packing.divides ? 1 / stored : stored, view.bytes,
                        packed ? unpack(view) : round_codes(view, 1, true, tensor.name));
}

void write_bitnet_packing(const std::vector<std::string>& not_converted, Json& config) {
  config["quantization_config"] = {{"quant_method", "bitnet"},
                                   {"linear_class", "autobitlinear"},
                                   {"quantization_mode", "offline"},
                                   {"modules_to_not_convert", not_converted}};
}

std::vector<std::byte> pack_bitnet(const std::vector<uint8_t>& codes, int64_t rows, int64_t columns) {
  const auto part = static_cast<size_t>(rows / kCodesPerByte * columns);
  std::vector<std::byte> bytes(part);
  for (size_t i = 0; i < part; ++i) {
    bytes[i] =
        static_cast<std::byte>(codes[i] | codes[part + i] << 2 | codes[2 * part + i] << 4 | codes[3 * part + i] << 6);
  }
  return bytes;
}

}  // namespace pare
