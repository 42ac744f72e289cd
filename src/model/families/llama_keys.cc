#include "model/families/llama_keys.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "model/families/config_reader.h"

namespace pare {
namespace {

constexpr int64_t kMaxLayers = 10000;

AttentionConfig make_attention(int heads, int kv_heads, int head_dim, bool bias, const RopeConfig& rope) {
  AttentionConfig attention;
  attention.heads = heads;
  attention.kv_heads = kv_heads;
  attention.head_dim = head_dim;
  attention.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)));
  attention.qkv_bias = attention.output_bias = bias;
  attention.rope = rope;
  return attention;
}

}  // namespace

int narrow_key(int64_t value, std::string_view what, const std::string& where) {
  if (value < 0 || value > (int64_t{1} << 30)) fail("{}: {} is {}, out of range", where, what, value);
  return static_cast<int>(value);
}

std::vector<int64_t> per_layer_key(const GgufMetadata& metadata, const std::string& key, size_t layers) {
  const GgufValue* value = metadata.find(key);
  if (!value) fail("{}: {} is missing", metadata.file(), key);
  const bool scalar = std::visit([](const auto& v) { return std::is_arithmetic_v<std::decay_t<decltype(v)>>; }, *value);
  if (scalar) return std::vector<int64_t>(layers, metadata.get_int(key));
  auto values = metadata.find_ints(key).value();
  if (values.size() != layers) {
    fail("{}: {} has {} entries, expected {} (one for each layer)", metadata.file(), key, values.size(), layers);
  }
  return values;
}

ModelConfig llama_from_json(const ConfigReader& reader, const char* family) {
  const std::string& where = reader.where();
  ModelConfig config;
  config.family = family;
  config.hidden = reader.get_int("hidden_size");
  config.vocabulary = reader.get_int("vocab_size");
  config.context = reader.find_int("max_position_embeddings").value_or(2048);
  config.norm_epsilon = static_cast<float>(reader.find_number("rms_norm_eps").value_or(1e-6));
  config.tied_embedding = reader.find_bool("tie_word_embeddings").value_or(false);
  const auto activation = reader.find_string("hidden_act").value_or("silu");
  if (activation != "silu" && activation != "swish") fail("{}: hidden_act is \"{}\", expected silu", where, activation);
  const int64_t layers = reader.get_int("num_hidden_layers");
  if (layers < 0 || layers > kMaxLayers)
    fail("{}: num_hidden_layers is {}, expected 0 to {}", where, layers, kMaxLayers);
  const int heads = narrow_key(reader.get_int("num_attention_heads"), "num_attention_heads", where);
  if (heads == 0) fail("{}: num_attention_heads is 0", where);
  const int kv_heads = narrow_key(reader.find_int("num_key_value_heads").value_or(heads), "num_key_value_heads", where);
  const int head_dim = narrow_key(reader.find_int("head_dim").value_or(config.hidden / heads), "head_dim", where);
  const RopeConfig rope = read_rope(reader, head_dim, config.context);
  LayerConfig layer;
  layer.attention = make_attention(heads, kv_heads, head_dim, reader.find_bool("attention_bias").value_or(false), rope);
  layer.mlp = MlpConfig{};
  layer.mlp->width = reader.get_int("intermediate_size");
  layer.mlp->bias = reader.find_bool("mlp_bias").value_or(false);
  config.layers.assign(static_cast<size_t>(layers), layer);
  for (int i : reader.layer_list("drop_attn_list", layers)) config.layers[static_cast<size_t>(i)].attention.reset();
  for (int i : reader.layer_list("drop_mlp_list", layers)) config.layers[static_cast<size_t>(i)].mlp.reset();
  return config;
}

void llama_to_json(const ModelConfig& config, Json& json) {
  json["hidden_size"] = config.hidden;
  json["vocab_size"] = config.vocabulary;
  json["max_position_embeddings"] = config.context;
  json["rms_norm_eps"] = static_cast<double>(std::stod(fmt::format("{}", config.norm_epsilon)));
  json["tie_word_embeddings"] = config.tied_embedding;
  json["num_hidden_layers"] = config.layers.size();
  json["hidden_act"] = "silu";
  for (const LayerConfig& layer : config.layers) {
    if (!layer.attention) continue;
    json["num_attention_heads"] = layer.attention->heads;
    json["num_key_value_heads"] = layer.attention->kv_heads;
    json["head_dim"] = layer.attention->head_dim;
    json["attention_bias"] = layer.attention->qkv_bias;
    write_rope(layer.attention->rope, json);
    break;
  }
  if (!json.contains("num_attention_heads")) json["num_attention_heads"] = 1;
  for (const LayerConfig& layer : config.layers) {
    if (!layer.mlp) continue;
    json["intermediate_size"] = layer.mlp->width;
    json["mlp_bias"] = layer.mlp->bias;
    break;
  }
  if (!json.contains("intermediate_size")) json["intermediate_size"] = 1;
  std::vector<int> attention, mlp;
  for (size_t i = 0; i < config.layers.size(); ++i) {
    if (!config.layers[i].attention) attention.push_back(static_cast<int>(i));
    if (!config.layers[i].mlp) mlp.push_back(static_cast<int>(i));
  }
  json.erase("drop_attn_list");
  json.erase("drop_mlp_list");
  if (!attention.empty()) json["drop_attn_list"] = attention;
  if (!mlp.empty()) json["drop_mlp_list"] = mlp;
}

namespace {

RopeScaling gguf_scaling(const GgufMetadata& metadata, const GgufKeys& keys, int64_t context) {
  // pare's own key holds everything; the standard ones hold what llama.cpp understands.
  if (const std::string* own = metadata.find_string("pare.rope_scaling")) {
    const Json json = parse_json(*own, metadata.file() + ": pare.rope_scaling");
    if (!json.is_object()) fail("{}: pare.rope_scaling is not an object", metadata.file());
    return scaling_from_json(ConfigReader(json, metadata.file() + ": pare.rope_scaling"), context);
  }
  RopeScaling scaling;
  const std::string* type = metadata.find_string(keys("rope.scaling.type"));
  const auto factor = metadata.find_number(keys("rope.scaling.factor"));
  if (!type || *type == "none") return scaling;
  if (*type != "linear" && *type != "yarn") {
    fail("{}: {} is \"{}\", expected none, linear or yarn", metadata.file(), keys("rope.scaling.type"), *type);
  }
  if (!factor) fail("{}: {} is missing", metadata.file(), keys("rope.scaling.factor"));
  scaling.kind = *type == "linear" ? RopeScalingKind::kLinear : RopeScalingKind::kYarn;
  scaling.factor = *factor;
  scaling.original_context = metadata.find_int(keys("rope.scaling.original_context_length")).value_or(context);
  scaling.beta_fast = metadata.find_number(keys("rope.scaling.yarn_beta_fast")).value_or(32);
  scaling.beta_slow = metadata.find_number(keys("rope.scaling.yarn_beta_slow")).value_or(1);
  return scaling;
}

/// Heads and widths of each layer, 0 for a part that is not there.
struct LayerSizes {
  std::vector<int64_t> heads, kv_heads, widths;
};

LayerSizes read_layer_sizes(const GgufMetadata& metadata, const GgufKeys& keys, size_t layers) {
  LayerSizes sizes;
  sizes.heads = per_layer_key(metadata, keys("attention.head_count"), layers);
  const std::string kv = keys("attention.head_count_kv"), width = keys("feed_forward_length");
  sizes.kv_heads = metadata.find(kv) ? per_layer_key(metadata, kv, layers) : sizes.heads;
  sizes.widths = per_layer_key(metadata, width, layers);
  if (!keys.per_layer()) return sizes;
  for (size_t i = 0; i < layers; ++i) {
    if (sizes.heads[i] == 0) continue;
    if (sizes.kv_heads[i] == 0) {
      fail("{}: {}[{}] is 0 beside {} heads: linear attention is not supported", metadata.file(), kv, i,
           sizes.heads[i]);
    }
    if (sizes.widths[i] == 0) {
      fail("{}: {}[{}] is 0, but the layer has attention, whose result llama.cpp loses then; expected at least 1",
           metadata.file(), width, i);
    }
  }
  return sizes;
}

}  // namespace

ModelConfig llama_from_gguf(const GgufMetadata& metadata, const char* family) {
  const std::string& where = metadata.file();
  const GgufKeys keys(metadata);
  ModelConfig config;
  config.family = family;
  config.hidden = metadata.get_int(keys("embedding_length"));
  config.vocabulary = metadata.find_int(keys("vocab_size")).value_or(0);  // 0: the embedding tells
  config.context = metadata.get_int(keys("context_length"));
  config.norm_epsilon = static_cast<float>(metadata.get_number(keys("attention.layer_norm_rms_epsilon")));
  if (metadata.find_int(keys("expert_count")).value_or(0) > 0) {
    fail("{}: {} is set: mixtures of experts are not supported", where, keys("expert_count"));
  }
  const int64_t count = metadata.get_int(keys("block_count"));
  if (count < 0 || count > kMaxLayers) {
    fail("{}: {} is {}, expected 0 to {}", where, keys("block_count"), count, kMaxLayers);
  }
  const auto layers = static_cast<size_t>(count);
  const LayerSizes sizes = read_layer_sizes(metadata, keys, layers);
  RopeConfig rope;
  rope.layout = RopeLayout::kInterleaved;
  rope.theta = metadata.find_number(keys("rope.freq_base")).value_or(10000);
  rope.scaling = gguf_scaling(metadata, keys, config.context);
  // Where no key says how large a head is, llama.cpp asks the first layer for all of them.
  const auto first = std::find_if(sizes.heads.begin(), sizes.heads.end(), [](int64_t n) { return n != 0; });
  config.layers.resize(layers);
  for (size_t i = 0; i < layers; ++i) {
    if (sizes.heads[i] != 0) {
      const int n = narrow_key(sizes.heads[i], keys("attention.head_count"), where);
      const auto key_length = metadata.find_int(keys("attention.key_length")).value_or(config.hidden / *first);
      if (metadata.find_int(keys("attention.value_length")).value_or(key_length) != key_length) {
        fail("{}: {} differs from key_length {}", where, keys("attention.value_length"), key_length);
      }
      rope.dims = narrow_key(metadata.find_int(keys("rope.dimension_count")).value_or(key_length),
                             keys("rope.dimension_count"), where);
      config.layers[i].attention =
          make_attention(n, narrow_key(sizes.kv_heads[i], keys("attention.head_count_kv"), where),
                         narrow_key(key_length, keys("attention.key_length"), where), false, rope);
    }
    if (sizes.widths[i] != 0) {
      config.layers[i].mlp = MlpConfig{};
      config.layers[i].mlp->width = sizes.widths[i];
    }
  }
  return config;
}

namespace {

/// One number if all layers agree, as stock readers expect; else, and always in `deci`, an array with 0 for a dropped
/// part.
template <class Get>
void set_per_layer(GgufMetadata& metadata, const GgufKeys& keys, const char* key, const ModelConfig& config, Get get) {
  std::vector<int32_t> values;
  for (const LayerConfig& layer : config.layers) values.push_back(static_cast<int32_t>(get(layer)));
  const bool same = std::all_of(values.begin(), values.end(), [&](int32_t v) { return v == values[0]; });
  if (same && !keys.per_layer()) {
    metadata.set(keys(key), static_cast<uint32_t>(values.empty() ? 1 : values[0]));
  } else {
    metadata.set(keys(key), std::move(values));
  }
}

void set_rope(const RopeConfig& rope, const GgufKeys& keys, GgufMetadata& metadata) {
  metadata.set(keys("rope.dimension_count"), static_cast<uint32_t>(rope.dims));
  metadata.set(keys("rope.freq_base"), static_cast<float>(rope.theta));
  const RopeScaling& scaling = rope.scaling;
  if (scaling.kind == RopeScalingKind::kNone) return;
  metadata.set("pare.rope_scaling", scaling_to_json(scaling).dump());
  if (scaling.kind == RopeScalingKind::kLinear || scaling.kind == RopeScalingKind::kYarn) {
    metadata.set(keys("rope.scaling.type"), std::string(scaling.kind == RopeScalingKind::kLinear ? "linear" : "yarn"));
    metadata.set(keys("rope.scaling.factor"), static_cast<float>(scaling.factor));
  }
  if (scaling.kind == RopeScalingKind::kYarn) {
    metadata.set(keys("rope.scaling.original_context_length"), static_cast<uint32_t>(scaling.original_context));
  }
}

}  // namespace

void llama_to_gguf(const ModelConfig& config, GgufMetadata& metadata) {
  const GgufKeys keys(metadata);
  metadata.set(keys("embedding_length"), static_cast<uint32_t>(config.hidden));
  metadata.set(keys("vocab_size"), static_cast<uint32_t>(config.vocabulary));
  metadata.set(keys("context_length"), static_cast<uint32_t>(config.context));
  metadata.set(keys("attention.layer_norm_rms_epsilon"), config.norm_epsilon);
  metadata.set(keys("block_count"), static_cast<uint32_t>(config.layers.size()));
  set_per_layer(metadata, keys, "attention.head_count", config,
                [](const auto& l) { return l.attention ? l.attention->heads : 0; });
  set_per_layer(metadata, keys, "attention.head_count_kv", config,
                [](const auto& l) { return l.attention ? l.attention->kv_heads : 0; });
  set_per_layer(metadata, keys, "feed_forward_length", config, [](const auto& l) { return l.mlp ? l.mlp->width : 0; });
  for (const LayerConfig& layer : config.layers) {
    if (!layer.attention) continue;
    metadata.set(keys("attention.key_length"), static_cast<uint32_t>(layer.attention->head_dim));
    metadata.set(keys("attention.value_length"), static_cast<uint32_t>(layer.attention->head_dim));
    set_rope(layer.attention->rope, keys, metadata);
    break;
  }
}

}  // namespace pare
