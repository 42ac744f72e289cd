#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "model/config.h"
#include "model/families/config_reader.h"
#include "model/families/family.h"

namespace pare {

// What Llama and families made like it have in common: names of weights and keys of both formats. A family of that kind
// calls these and adds what it has of its own.

inline constexpr std::array<WeightName, 19> kLlamaNames{{
    {WeightKind::kEmbedding, "model.embed_tokens.weight", "token_embd.weight"},
    {WeightKind::kOutputNorm, "model.norm.weight", "output_norm.weight"},
    {WeightKind::kOutput, "lm_head.weight", "output.weight"},
    {WeightKind::kAttentionNorm, "model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"},
    {WeightKind::kQuery, "model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight"},
    {WeightKind::kKey, "model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight"},
    {WeightKind::kValue, "model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight"},
    {WeightKind::kAttentionOutput, "model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight"},
    {WeightKind::kQueryBias, "model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias"},
    {WeightKind::kKeyBias, "model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias"},
    {WeightKind::kValueBias, "model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias"},
    {WeightKind::kAttentionOutputBias, "model.layers.{}.self_attn.o_proj.bias", "blk.{}.attn_output.bias"},
    {WeightKind::kMlpNorm, "model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight"},
    {WeightKind::kGate, "model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight"},
    {WeightKind::kUp, "model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight"},
    {WeightKind::kDown, "model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight"},
    {WeightKind::kGateBias, "model.layers.{}.mlp.gate_proj.bias", "blk.{}.ffn_gate.bias"},
    {WeightKind::kUpBias, "model.layers.{}.mlp.up_proj.bias", "blk.{}.ffn_up.bias"},
    {WeightKind::kDownBias, "model.layers.{}.mlp.down_proj.bias", "blk.{}.ffn_down.bias"},
}};

/// Llama's names and further rows.
template <size_t N>
constexpr std::array<WeightName, kLlamaNames.size() + N> llama_names_and(const std::array<WeightName, N>& more) {
  std::array<WeightName, kLlamaNames.size() + N> names{};
  for (size_t i = 0; i < names.size(); ++i) {
    names[i] = i < kLlamaNames.size() ? kLlamaNames[i] : more[i - kLlamaNames.size()];
  }
  return names;
}

/// Names of keys of the file's architecture: "llama.block_count", "deci.block_count".
class GgufKeys {
 public:
  explicit GgufKeys(const GgufMetadata& metadata) : prefix_(metadata.get_string("general.architecture") + ".") {}
  std::string operator()(std::string_view name) const { return prefix_ + std::string(name); }
  /// Whether it is the architecture whose layers may differ in stock readers, too.
  bool per_layer() const { return prefix_ == "deci."; }

 private:
  std::string prefix_;
};

/// A size that a key says. Throws Error unless it is in [0, 2^30].
int narrow_key(int64_t value, std::string_view what, const std::string& where);
/// A key that is one number for all layers, or an array with one for each. Throws Error if it is missing or has another
/// number of entries.
std::vector<int64_t> per_layer_key(const GgufMetadata& metadata, const std::string& key, size_t layers);

// As the functions of Family do it; `family` becomes the configuration's name.
ModelConfig llama_from_json(const ConfigReader& reader, const char* family);
/// config.json has one set of sizes for all layers: the first attention's and the first MLP's, which all others equal.
void llama_to_json(const ModelConfig& config, Json& json);
ModelConfig llama_from_gguf(const GgufMetadata& metadata, const char* family);
void llama_to_gguf(const ModelConfig& config, GgufMetadata& metadata);

}  // namespace pare
