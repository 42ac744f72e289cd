#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "model/checkpoint.h"
#include "tensor/ternary.h"

namespace pare {

// Ternary weights of checkpoints: whatever a file packs them in, a WeightTensor has them in a ternary storage type with
// unit block scales, and the tensor's own scale beside it.

/// Throws Error naming the tensor, row and column of a code that is not w + 1; `first_row`: that of the first codes.
void check_ternary_codes(std::span<const uint8_t> codes, int64_t first_row, int64_t columns, const std::string& name);
/// Throws Error naming the tensor unless the scale is a positive number.
void check_ternary_scale(float scale, const std::string& name);

/// Says how the weight (whose id, name, shape, owner and key are set) is made: in TQ2_0, or Q2_0 where 256 does not
/// divide its rows; `from`: the file's bytes that fill reads. Throws Error naming the tensor if 64 does not either, or
/// if the scale is no positive number; making it throws for a code that is none.
WeightTensor ternary_weight(WeightTensor weight, float scale, std::span<const std::byte> from, FillCodes fill);

/// A weight of GGUF's I2_S. `bytes` as GgufTensor has them. Throws Error if rows are no whole blocks of the layout.
WeightTensor i2s_weight(WeightTensor weight, std::span<const std::byte> bytes, I2sLayout layout);

/// Whether a weight that the config has belongs to linear layers that quantize their inputs.
bool quantizes_inputs(const ModelConfig& config, const WeightId& id);
/// Whether a weight is a matrix in a ternary type, and its layer means it that way.
bool is_ternary_weight(const ModelConfig& config, const WeightTensor& weight);

/// w + 1 of every row, codes: [rows * columns], and what their values are multiplied by: block scale times the tensor's
/// own. Blocks of scale 0 are zeros under any scale; if there are no others, the block scale is 1. Throws Error naming
/// the tensor if it is not ternary.
struct TernaryCodes {
  std::vector<uint8_t> codes;
  float scale;
};
TernaryCodes read_ternary(const WeightTensor& weight, const TensorView& view);

/// The bytes of `from` in another ternary type: the same codes and scales wherever its blocks can have them.
std::vector<std::byte> to_ternary_type(const TensorView& from, DType type);
/// The bytes of a matrix of -1, 0 and 1 in a ternary type, scales 1. Throws Error naming the tensor for other values.
std::vector<std::byte> ternary_of_values(const TensorView& from, DType type, const std::string& name);

/// The name of a tensor that belongs to a weight: "blk.0.attn_q.weight" -> "blk.0.attn_q" + suffix.
std::string sibling_name(std::string_view weight, std::string_view suffix);

/// GGUF's key that says how linear layers treat their inputs, where the architecture does not: "none" or "int8".
inline constexpr const char* kActivationsKey = "pare.activations";
const char* activations_name(ActivationQuantization activations);
std::optional<ActivationQuantization> find_activations(std::string_view name);

/// Sets how linear layers treat their inputs, in every module that there is.
void set_activations(ModelConfig& config, ActivationQuantization activations);
/// Whether any module's linear layers do so.
bool quantizes_activations(const ModelConfig& config);

}  // namespace pare
