// DiffLlama (transformers' DiffLlamaForCausalLM), and the two forms of differential attention that Microsoft published
// (https://github.com/microsoft/unilm, Diff-Transformer and Diff-Transformer-V2) in the same names and keys.

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "model/families/llama_keys.h"

namespace pare {
namespace {

using enum WeightKind;

constexpr auto kNames = llama_names_and(
    std::array<WeightName, 6>{{{kLambdaQuery1, "model.layers.{}.self_attn.lambda_q1", "blk.{}.attn_lambda_q1.weight"},
                               {kLambdaKey1, "model.layers.{}.self_attn.lambda_k1", "blk.{}.attn_lambda_k1.weight"},
                               {kLambdaQuery2, "model.layers.{}.self_attn.lambda_q2", "blk.{}.attn_lambda_q2.weight"},
                               {kLambdaKey2, "model.layers.{}.self_attn.lambda_k2", "blk.{}.attn_lambda_k2.weight"},
                               {kLambda, "model.layers.{}.self_attn.lambda_proj.weight", "blk.{}.attn_lambda.weight"},
                               {kHeadNorm, "model.layers.{}.self_attn.subln.weight", "blk.{}.attn_head_norm.weight"}}});

/// A form's name in both formats, and what it is but for lambda_init.
struct Form {
  const char* name;
  DifferentialConfig config;
};
constexpr Form kForms[] = {
    {"diffllama", {HeadPairing::kHalves, true, LambdaSource::kVectors, 0, true, false}},
    {"v1", {HeadPairing::kNeighbours, true, LambdaSource::kVectors, 0, true, true}},
    {"v2", {HeadPairing::kNeighbours, false, LambdaSource::kTokens, 0, false, false}},
};

const Form& find_form(const std::string& name, const std::string& key, const std::string& where) {
  for (const Form& form : kForms) {
    if (name == form.name) return form;
  }
  fail("{}: {} is \"{}\", expected diffllama, v1 or v2", where, key, name);
}

/// The form of a model's attentions; the first for a model that has none left.
const Form& form_of(const ModelConfig& config) {
  for (const LayerConfig& layer : config.layers) {
    if (!layer.attention) continue;
    DifferentialConfig differential = layer.attention->differential;
    differential.lambda_init = 0;
    const auto* form =
        std::find_if(std::begin(kForms), std::end(kForms), [&](const Form& f) { return f.config == differential; });
    if (form != std::end(kForms)) return *form;
  }
  return kForms[0];
}

void set_form(ModelConfig& config, const Form& form) {
  for (LayerConfig& layer : config.layers) {
    if (!layer.attention) continue;
    layer.attention->kind = AttentionKind::kDifferential;
    layer.attention->differential = form.config;
  }
}

ModelConfig from_json(const Json& json, const std::string& where) {
  const ConfigReader reader(json, where);
  ModelConfig config = llama_from_json(reader, "diffllama");
  if (!reader.find_number("rms_norm_eps")) config.norm_epsilon = 1e-5f;  // DiffLlamaConfig's default
  const Form& form =
      find_form(reader.find_string("differential_form").value_or(kForms[0].name), "differential_form", where);
  set_form(config, form);
  const bool interleaved = reader.find_bool("rope_interleaved").value_or(false);
  for (size_t i = 0; i < config.layers.size(); ++i) {
    auto& attention = config.layers[i].attention;
    if (!attention) continue;
    if (form.config.lambda == LambdaSource::kVectors) {
      attention->differential.lambda_init = default_lambda_init(static_cast<int>(i));
    }
    if (interleaved) attention->rope.layout = RopeLayout::kInterleaved;
  }
  return config;
}

void to_json(const ModelConfig& config, Json& json) {
  llama_to_json(config, json);
  const Form& form = form_of(config);
  json.erase("differential_form");
  json.erase("rope_interleaved");  // folders are written with rows in the other order
  if (&form != &kForms[0]) json["differential_form"] = form.name;
}

ModelConfig from_gguf(const GgufMetadata& metadata) {
  const GgufKeys keys(metadata);
  ModelConfig config = llama_from_gguf(metadata, "diffllama");
  const std::string form_key = keys("attention.differential_form"), init_key = keys("attention.lambda_init");
  const std::string* name = metadata.find_string(form_key);
  const Form& form = find_form(name ? *name : kForms[0].name, form_key, metadata.file());
  set_form(config, form);
  if (form.config.lambda != LambdaSource::kVectors) return config;
  const auto values = metadata.find_numbers(init_key);
  if (!values) fail("{}: {} is missing", metadata.file(), init_key);
  if (values->size() != config.layers.size()) {
    fail("{}: {} has {} entries, expected {} (one for each layer)", metadata.file(), init_key, values->size(),
         config.layers.size());
  }
  for (size_t i = 0; i < config.layers.size(); ++i) {
    auto& attention = config.layers[i].attention;
    if (attention) attention->differential.lambda_init = static_cast<float>((*values)[i]);
  }
  return config;
}

void to_gguf(const ModelConfig& config, GgufMetadata& metadata) {
  llama_to_gguf(config, metadata);
  const GgufKeys keys(metadata);
  const Form& form = form_of(config);
  metadata.set(keys("attention.differential_form"), std::string(form.name));
  if (form.config.lambda != LambdaSource::kVectors) return;
  std::vector<float> values;
  for (const LayerConfig& layer : config.layers) {
    values.push_back(layer.attention ? layer.attention->differential.lambda_init : 0);
  }
  metadata.set(keys("attention.lambda_init"), std::move(values));
}

}  // namespace

const Family kDiffLlamaFamily{"diffllama",
                              "DiffLlamaForCausalLM",
                              "diffllama",
                              nullptr,
                              RopeLayout::kInterleaved,
                              kNames,
                              from_json,
                              to_json,
                              from_gguf,
                              to_gguf};

}  // namespace pare
