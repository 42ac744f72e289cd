// Llama 1 to 3.x (transformers' LlamaForCausalLM, llama.cpp's "llama", and "deci" where layers differ).

#include "base/json.h"
#include "model/families/llama_keys.h"

namespace pare {
namespace {

ModelConfig from_json(const Json& json, const std::string& where) {
  return llama_from_json(ConfigReader(json, where), "llama");
}

ModelConfig from_gguf(const GgufMetadata& metadata) { return llama_from_gguf(metadata, "llama"); }

}  // namespace

const Family kLlamaFamily{"llama",     "LlamaForCausalLM", "llama",       "deci",    RopeLayout::kInterleaved,
                          kLlamaNames, from_json,          llama_to_json, from_gguf, llama_to_gguf};

}  // namespace pare
