#pragma once
#include <filesystem>

#include "model/checkpoint.h"

namespace pare {

// What a Hugging Face folder holds beside weights, config and tokenizer, and a GGUF file in pare.* keys, so that a
// model that goes from one to the other and back is the same.

/// Sets pare.config, pare.generation_config, pare.tokenizer_config and pare.vector_type, and general.sampling.* where
/// llama.cpp has a key for what generation_config.json says.
void add_side_data(const Checkpoint& checkpoint, GgufMetadata& metadata);
/// The reverse. A file without pare's keys still has its general.sampling.*.
void read_side_data(Checkpoint& checkpoint, const GgufMetadata& metadata);

/// tokenizer_config.json of a checkpoint from GGUF: what the tokenizer says, and what it knew in its old folder.
std::string merged_tokenizer_config(const Checkpoint& checkpoint, const std::string& from_tokenizer);

}  // namespace pare
