#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "model/config.h"

namespace pare::cli {

/// The configuration of a published model, by its name ("llama-3.2-1b"): what a benchmark of its shape needs.
std::optional<ModelConfig> find_shape(std::string_view name);
/// "llama-2-7b, llama-2-13b, ...", for messages.
std::string shape_names();

}  // namespace pare::cli
