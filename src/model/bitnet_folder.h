#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "formats/safetensors.h"
#include "model/checkpoint.h"

namespace pare {

// How Hugging Face folders keep the weights of BitNet's linear layers (transformers 5, integrations/bitnet.py and
// BitNetQuantConfig; 1bitLLM's utils_quant.py).

struct BitnetPacking {
  bool master = false;   // float weights W, quantized by s = 1 / max(mean|W|, 1e-5): w = clamp(round(W * s), -1, 1)
  bool divides = false;  // values are w / weight_scale (BitLinear) rather than w * weight_scale (AutoBitLinear)
  std::optional<std::vector<std::string>> not_converted;  // modules left as they are; nothing = the output matrix only

  /// AutoBitLinear multiplies biases by weight_scale, too, which no other packing does, and no model has.
  bool scales_biases() const { return !master && !divides; }
  /// Whether the linear layer of this name ("model.layers.0.mlp.up_proj") is one of BitNet's.
  bool converts(std::string_view module) const;
};

/// What config.json says; nothing if the model is none of BitNet's. Throws Error for a quantization_config of others,
/// or one that asks for what is not done here.
std::optional<BitnetPacking> read_bitnet_packing(const Json& config, const std::string& where);

/// The ternary weight that a tensor of a converted layer holds: U8 [out / 4, in] (bits 2 i of row r are row
/// i * (out / 4) + r, w + 1), or floats. `weight` has its expected shape; `scale` is the tensor weight_scale, which may
/// be null. Throws Error naming the tensor.
WeightTensor bitnet_weight(const BitnetPacking& packing, WeightTensor weight, const SafetensorsTensor& tensor,
                           const SafetensorsTensor* scale);

/// Writes what read_bitnet_packing and transformers read: offline AutoBitLinear, with the modules that are stored
/// otherwise.
void write_bitnet_packing(const std::vector<std::string>& not_converted, Json& config);
/// Codes [rows, columns] packed as a folder has them: [rows / 4, columns]. Rows must be a multiple of 4.
std::vector<std::byte> pack_bitnet(const std::vector<uint8_t>& codes, int64_t rows, int64_t columns);

}  // namespace pare
