// BitNet b1.58: transformers' BitNetForCausalLM (2B4T), 1bitLLM's BitnetForCausalLM, llama.cpp's "bitnet" and
// bitnet.cpp's "bitnet-b1.58" and "bitnet-25". Llama with a norm before the output and the down projection.

#include "base/error.h"
#include "base/json.h"
#include "model/families/llama_keys.h"

namespace pare {
namespace {

using enum WeightKind;

// Of two names the first is the one that is written.
constexpr auto kNames = llama_names_and<4>(
    {{{kAttentionSubNorm, "model.layers.{}.self_attn.attn_sub_norm.weight", "blk.{}.attn_sub_norm.weight"},
      {kMlpSubNorm, "model.layers.{}.mlp.ffn_sub_norm.weight", "blk.{}.ffn_sub_norm.weight"},
      {kAttentionSubNorm, "model.layers.{}.self_attn.inner_attn_ln.weight", "blk.{}.attn_sub_norm.weight"},
      {kMlpSubNorm, "model.layers.{}.mlp.ffn_layernorm.weight", "blk.{}.ffn_sub_norm.weight"}}});

constexpr const char* kSquared = "relu2";

Activation activation_by_name(const std::string& name, const std::string& place) {
  if (name == kSquared) return Activation::kReluSquared;
  if (name == "silu" || name == "swish") return Activation::kSilu;
  fail("{} is \"{}\", expected relu2 or silu", place, name);
}

const char* activation_name(const ModelConfig& config) {
  for (const LayerConfig& layer : config.layers) {
    if (layer.mlp) return layer.mlp->activation == Activation::kReluSquared ? kSquared : "silu";
  }
  return kSquared;
}

void add_norms(ModelConfig& config, Activation activation) {
  for (LayerConfig& layer : config.layers) {
    if (layer.attention) layer.attention->sub_norm = true;
    if (!layer.mlp) continue;
    layer.mlp->sub_norm = true;
    layer.mlp->activation = activation;
  }
}

/// Defaults of transformers' BitNetConfig; those of 1bitLLM's class are Llama's.
Json with_defaults(const Json& json) {
  Json full = json;
  const Json defaults = {{"hidden_act", kSquared}, {"rms_norm_eps", 1e-5}, {"num_key_value_heads", 5}};
  for (const auto& [key, value] : defaults.items()) {
    if (!full.contains(key)) full[key] = value;
  }
  const auto rope = full.find("rope_parameters");
  const bool has_theta = rope != full.end() && rope->is_object() && rope->contains("rope_theta");
  if (!has_theta && !full.contains("rope_theta")) full["rope_theta"] = 500000.0;
  return full;
}

ModelConfig from_json(const Json& json, const std::string& where) {
  const bool transformers = json.contains("model_type") && json["model_type"] == "bitnet";
  Json full = transformers ? with_defaults(json) : json;
  const std::string act = ConfigReader(full, where).find_string("hidden_act").value_or("silu");
  const Activation activation = activation_by_name(act, where + ": hidden_act");
  full["hidden_act"] = "silu";
  full.erase("mlp_bias");  // these models have none, whatever is said
  ModelConfig config = llama_from_json(ConfigReader(full, where), "bitnet");
  for (const LayerConfig& layer : config.layers) {
    const int64_t width = layer.attention ? int64_t{layer.attention->heads} * layer.attention->head_dim : config.hidden;
    if (width != config.hidden) {
      fail("{}: {} heads of {}, expected a hidden size of {} (attn_sub_norm has so many values)", where,
           layer.attention->heads, layer.attention->head_dim, config.hidden);
    }
  }
  add_norms(config, activation);
  return config;
}

void to_json(const ModelConfig& config, Json& json) {
  llama_to_json(config, json);
  json["hidden_act"] = activation_name(config);
}

constexpr const char* kActivationKey = "hidden_activation";

ModelConfig from_gguf(const GgufMetadata& metadata) {
  const GgufKeys keys(metadata);
  ModelConfig config = llama_from_gguf(metadata, "bitnet");
  for (LayerConfig& layer : config.layers) {
    if (!layer.attention) continue;
    RopeConfig& rope = layer.attention->rope;
    rope.layout = RopeLayout::kHalves;
    // llama.cpp's converter says that it scales by 1.
    if (rope.scaling.kind == RopeScalingKind::kLinear && rope.scaling.factor == 1) rope.scaling = {};
  }
  // Without the key llama.cpp's "bitnet" takes silu, and bitnet.cpp's architectures square.
  const bool plain = metadata.get_string("general.architecture") == "bitnet";
  const std::string* act = metadata.find_string(keys(kActivationKey));
  add_norms(config, activation_by_name(act     ? *act
                                       : plain ? "silu"
                                               : kSquared,
                                       metadata.file() + ": " + keys(kActivationKey)));
  return config;
}

void to_gguf(const ModelConfig& config, GgufMetadata& metadata) {
  llama_to_gguf(config, metadata);
  metadata.set(GgufKeys(metadata)(kActivationKey), std::string(activation_name(config)));
}

}  // namespace

const Family kBitnetFamily{"bitnet", "BitNetForCausalLM", "bitnet", nullptr, RopeLayout::kHalves, kNames, from_json,
                           to_json,  from_gguf,           to_gguf,  true};

}  // namespace pare
