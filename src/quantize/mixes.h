#pragma once
#include <span>
#include <string_view>

#include "model/config.h"
#include "plan/plan.h"

namespace pare {

/// A mix of storage types by one of llama.cpp's names ("q4_k_m"): more bits for the weights that matter more.
struct Mix {
  const char* name;
  int gguf_file_type;  // general.file_type (LLAMA_FTYPE_MOSTLY_*)
  DType type;          // of what no rule names
};

std::span<const Mix> all_mixes();
/// Any case; null if unknown.
const Mix* find_mix(std::string_view name);
/// The plan that stores a model as llama.cpp's quantizer does without an importance matrix: the rules of
/// llama_tensor_get_type (llama-quant.cpp) for Llama-shaped models. Drops nothing.
Plan mix_plan(const Mix& mix, const ModelConfig& config);

}  // namespace pare
