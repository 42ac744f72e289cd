#include "model/llama_cpp.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/families/family.h"

namespace pare {
namespace {

// A row of any block type holds a multiple of 32 values, so a tool that quantizes the file finds nothing odd here.
constexpr int64_t kStandInWidth = 32;
constexpr int kStandInHeadSize = 32;  // where no attention is left to say another

[[noreturn]] void refuse(const Checkpoint& checkpoint, const std::string& what) {
  fail("{}: {}; leave out --for llama.cpp to write a file for pare alone", checkpoint.path.string(), what);
}

/// What llama.cpp's rope makes of a model: some scalings it does not have, others it has without all their parameters.
void check_rope(const Checkpoint& checkpoint, const AttentionConfig& attention) {
  const RopeConfig& rope = attention.rope;
  const RopeScaling& scaling = rope.scaling;
  if (rope.dims != attention.head_dim) {
    refuse(checkpoint, fmt::format("rope rotates {} of the {} components of a head, and llama.cpp rotates all",
                                   rope.dims, attention.head_dim));
  }
  if (scaling.kind == RopeScalingKind::kDynamic || scaling.kind == RopeScalingKind::kLongRope) {
    const char* name = scaling.kind == RopeScalingKind::kDynamic ? "dynamic" : "longrope";
    refuse(checkpoint, fmt::format("rope_type \"{}\" is none that llama.cpp reads for this architecture", name));
  }
  if (scaling.kind != RopeScalingKind::kYarn) return;
  const RopeScaling plain;
  const auto check = [&](bool usual, const char* key) {
    if (!usual)
      refuse(checkpoint, fmt::format("yarn rope scaling with its own {}, which llama.cpp does not read", key));
  };
  check(!scaling.attention_factor, "attention_factor");
  check(!scaling.mscale && !scaling.mscale_all_dim, "mscale");
  check(scaling.beta_fast == plain.beta_fast && scaling.beta_slow == plain.beta_slow, "beta_fast or beta_slow");
  check(scaling.truncate, "truncate");
}

/// llama.cpp's "bitnet" has the embedding for its output matrix, no biases and no divisors of rope. Its releases do not
/// read hidden_activation there and take SiLU.
void check_bitnet(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config;
  if (!config.tied_embedding) {
    refuse(checkpoint, "an output matrix of its own, where llama.cpp takes the embedding in this family");
  }
  for (const LayerConfig& layer : config.layers) {
    if (layer.mlp && layer.mlp->activation == Activation::kReluSquared) {
      refuse(checkpoint, "squared ReLU, for which llama.cpp takes SiLU in this family");
    }
    if (!layer.attention) continue;
    const AttentionConfig& attention = *layer.attention;
    if (attention.qkv_bias || attention.output_bias) {
      refuse(checkpoint, "biases, which llama.cpp does not add in this family");
    }
    if (attention.rope.scaling.kind == RopeScalingKind::kLlama3 || !attention.rope.frequency_factors.empty()) {
      refuse(checkpoint, "rope frequencies with divisors, which llama.cpp does not read in this family");
    }
  }
}

void check_expressible(const Checkpoint& checkpoint) {
  const bool empty = std::none_of(checkpoint.config.layers.begin(), checkpoint.config.layers.end(),
                                  [](const LayerConfig& layer) { return layer.attention || layer.mlp; });
  if (empty) refuse(checkpoint, "no layer is left, and llama.cpp needs one");
  for (const LayerConfig& layer : checkpoint.config.layers) {
    if (!layer.attention) continue;
    if (layer.attention->is_differential()) refuse(checkpoint, "differential attention, which llama.cpp does not have");
    check_rope(checkpoint, *layer.attention);
  }
  const Family& family = family_by_name(checkpoint.config.family);
  if (!family.gguf_deci && layers_differ(checkpoint.config)) {
    refuse(checkpoint, "layers differ, which llama.cpp cannot run in this family");
  }
  if (family.ternary) check_bitnet(checkpoint);
}

/// Adds the weights that the config has and the checkpoint has not: zeros.
void add_zeros(Checkpoint& checkpoint) {
  std::vector<WeightTensor> zeros;
  for (const WeightId& id : expected_weights(checkpoint.config)) {
    if (checkpoint.find(id)) continue;
    WeightTensor weight;
    weight.id = id;
    weight.name = id.to_string();
    weight.type = info(id.kind).matrix ? DType::kF16 : DType::kF32;
    weight.shape = *expected_shape(checkpoint.config, id);
    weight.make = [bytes = static_cast<size_t>(weight.bytes())] { return std::vector<std::byte>(bytes); };
    zeros.push_back(std::move(weight));
  }
  checkpoint.weights.insert(checkpoint.weights.end(), zeros.begin(), zeros.end());
  std::sort(checkpoint.weights.begin(), checkpoint.weights.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
}

AttentionConfig one_head(const ModelConfig& config) {
  AttentionConfig attention;
  const auto kept = std::find_if(config.layers.begin(), config.layers.end(),
                                 [](const LayerConfig& layer) { return layer.attention.has_value(); });
  if (kept != config.layers.end()) {
    attention = *kept->attention;
  } else {
    attention.head_dim = attention.rope.dims = kStandInHeadSize;
    attention.scale = 1 / std::sqrt(static_cast<float>(kStandInHeadSize));
  }
  attention.heads = attention.kv_heads = 1;
  attention.qkv_bias = attention.output_bias = false;
  return attention;
}

/// The plan in full, whatever the file said that the model came from: reading relies on it.
void name_drops(Checkpoint& checkpoint) {
  Plan drops;
  for (size_t i = 0; i < checkpoint.config.layers.size(); ++i) {
    const int layer = checkpoint.original_layers[i];
    if (!checkpoint.config.layers[i].attention) drops.drop_attention.push_back(layer);
    if (!checkpoint.config.layers[i].mlp) drops.drop_mlp.push_back(layer);
  }
  checkpoint.plan = merge(checkpoint.plan, drops);
}

}  // namespace

Checkpoint with_stand_ins(const Checkpoint& checkpoint) {
  check_expressible(checkpoint);
  Checkpoint result = checkpoint;
  name_drops(result);
  const AttentionConfig stand_in = one_head(checkpoint.config);
  bool first = true;
  for (LayerConfig& layer : result.config.layers) {
    if (!layer.attention && !layer.mlp) continue;
    if (first && !layer.attention) layer.attention = stand_in;
    first = false;
    if (layer.attention && !layer.mlp) {
      layer.mlp = MlpConfig{};
      layer.mlp->width = kStandInWidth;
    }
  }
  add_zeros(result);
  return result;
}

void remove_stand_ins(ModelConfig& config, const Plan& plan, const std::vector<int>& original_layers,
                      const std::string& where) {
  for (size_t i = 0; i < config.layers.size(); ++i) {
    LayerConfig& layer = config.layers[i];
    const int original = original_layers[i];
    if (layer.attention && plan.drops_attention(original)) {
      if (i != 0 || layer.attention->heads != 1) {
        fail("{}: pare.plan drops the attention of layer {}, but the file has one of {} heads there", where, original,
             layer.attention->heads);
      }
      layer.attention.reset();
    }
    if (layer.mlp && plan.drops_mlp(original)) {
      if (layer.mlp->width != kStandInWidth) {
        fail("{}: pare.plan drops the MLP of layer {}, but the file has one of width {} there, expected {}", where,
             original, layer.mlp->width, kStandInWidth);
      }
      layer.mlp.reset();
    }
  }
}

}  // namespace pare
