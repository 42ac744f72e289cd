#include "model/weights.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace pare {
namespace {

using enum WeightKind;

// In the order of the enum, which info() relies on.
constexpr std::array<WeightKindInfo, 27> kKinds{{{kEmbedding, "embedding", true, false},
                                                 {kOutputNorm, "output_norm", false, false},
                                                 {kOutput, "output", true, false},
                                                 {kAttentionNorm, "attn_norm", false, true},
                                                 {kQuery, "attn_q", true, true},
                                                 {kKey, "attn_k", true, true},
                                                 {kValue, "attn_v", true, true},
                                                 {kAttentionOutput, "attn_output", true, true},
                                                 {kQueryBias, "attn_q_bias", false, true},
                                                 {kKeyBias, "attn_k_bias", false, true},
                                                 {kValueBias, "attn_v_bias", false, true},
                                                 {kAttentionOutputBias, "attn_output_bias", false, true},
                                                 {kAttentionSubNorm, "attn_sub_norm", false, true},
                                                 {kLambdaQuery1, "attn_lambda_q1", false, true},
                                                 {kLambdaKey1, "attn_lambda_k1", false, true},
                                                 {kLambdaQuery2, "attn_lambda_q2", false, true},
                                                 {kLambdaKey2, "attn_lambda_k2", false, true},
                                                 {kLambda, "attn_lambda", false, true},
                                                 {kHeadNorm, "attn_head_norm", false, true},
                                                 {kMlpNorm, "ffn_norm", false, true},
                                                 {kGate, "ffn_gate", true, true},
                                                 {kUp, "ffn_up", true, true},
                                                 {kDown, "ffn_down", true, true},
                                                 {kGateBias, "ffn_gate_bias", false, true},
                                                 {kUpBias, "ffn_up_bias", false, true},
                                                 {kDownBias, "ffn_down_bias", false, true},
                                                 {kMlpSubNorm, "ffn_sub_norm", false, true}}};

std::optional<Shape> differential_shape(const AttentionConfig& a, int64_t hidden, WeightKind kind) {
  const bool vectors = a.differential.lambda == LambdaSource::kVectors;
  switch (kind) {
    case kLambdaQuery1:
    case kLambdaKey1:
    case kLambdaQuery2:
    case kLambdaKey2:
      return vectors ? std::optional(Shape{int64_t{a.head_dim}}) : std::nullopt;
    case kLambda:
      return vectors ? std::nullopt : std::optional(Shape{int64_t{a.outputs()}, hidden});
    case kHeadNorm:
      return a.differential.head_norm_gain ? std::optional(Shape{int64_t{a.output_dim()}}) : std::nullopt;
    default:
      return std::nullopt;
  }
}

std::optional<Shape> attention_shape(const AttentionConfig& a, int64_t hidden, WeightKind kind) {
  const int64_t query = int64_t{a.heads} * a.head_dim, key = int64_t{a.kv_heads} * a.head_dim;
  const auto if_has = [](bool has, int64_t n) { return has ? std::optional(Shape{n}) : std::nullopt; };
  switch (kind) {
    case kAttentionNorm:
      return Shape{hidden};
    case kQuery:
      return Shape{query, hidden};
    case kKey:
    case kValue:
      return Shape{key, hidden};
    case kAttentionOutput:
      return Shape{hidden, a.output_width()};
    case kQueryBias:
      return if_has(a.qkv_bias, query);
    case kKeyBias:
    case kValueBias:
      return if_has(a.qkv_bias, key);
    case kAttentionOutputBias:
      return if_has(a.output_bias, hidden);
    case kAttentionSubNorm:
      return if_has(a.sub_norm, a.output_width());
    default:
      return a.is_differential() ? differential_shape(a, hidden, kind) : std::nullopt;
  }
}

std::optional<Shape> mlp_shape(const MlpConfig& mlp, int64_t hidden, WeightKind kind) {
  switch (kind) {
    case kMlpNorm:
      return Shape{hidden};
    case kGate:
    case kUp:
      return Shape{mlp.width, hidden};
    case kDown:
      return Shape{hidden, mlp.width};
    case kGateBias:
    case kUpBias:
      return mlp.bias ? std::optional(Shape{mlp.width}) : std::nullopt;
    case kDownBias:
      return mlp.bias ? std::optional(Shape{hidden}) : std::nullopt;
    case kMlpSubNorm:
      return mlp.sub_norm ? std::optional(Shape{mlp.width}) : std::nullopt;
    default:
      return std::nullopt;
  }
}

}  // namespace

const WeightKindInfo& info(WeightKind kind) { return kKinds[static_cast<size_t>(kind)]; }

std::span<const WeightKindInfo> all_weight_kinds() { return kKinds; }

const WeightKindInfo* find_weight_kind(std::string_view name) {
  const auto found = std::find_if(kKinds.begin(), kKinds.end(), [&](const auto& kind) { return name == kind.name; });
  return found == kKinds.end() ? nullptr : &*found;
}

std::string WeightId::to_string() const {
  return layer < 0 ? info(kind).name : fmt::format("layer {} {}", layer, info(kind).name);
}

TensorView WeightTensor::read(std::vector<std::byte>& storage) const {
  if (!make) return {type, shape, mapped};
  storage = make();
  return {type, shape, storage};
}

std::optional<Shape> expected_shape(const ModelConfig& config, WeightId id) {
  switch (id.kind) {
    case kEmbedding:
      return Shape{config.vocabulary, config.hidden};
    case kOutputNorm:
      return Shape{config.hidden};
    case kOutput:
      return config.tied_embedding ? std::nullopt : std::optional(Shape{config.vocabulary, config.hidden});
    default:
      break;
  }
  if (id.layer < 0 || id.layer >= static_cast<int>(config.layers.size())) return std::nullopt;
  const LayerConfig& layer = config.layers[static_cast<size_t>(id.layer)];
  if (layer.attention) {
    if (auto shape = attention_shape(*layer.attention, config.hidden, id.kind)) return shape;
  }
  return layer.mlp ? mlp_shape(*layer.mlp, config.hidden, id.kind) : std::nullopt;
}

std::vector<WeightId> expected_weights(const ModelConfig& config) {
  std::vector<WeightId> ids{{kEmbedding}};
  for (int layer = 0; layer < static_cast<int>(config.layers.size()); ++layer) {
    for (const WeightKindInfo& kind : kKinds) {
      const WeightId id{kind.kind, layer};
      if (kind.in_layer && expected_shape(config, id)) ids.push_back(id);
    }
  }
  ids.push_back({kOutputNorm});
  if (!config.tied_embedding) ids.push_back({kOutput});
  return ids;
}

int64_t matrix_weights(const ModelConfig& config) {
  int64_t count = 0;
  for (const WeightId id : expected_weights(config)) {
    if (info(id.kind).matrix) count += expected_shape(config, id)->count();
  }
  return count;
}

}  // namespace pare
